"""The errors that are the user's to mend, and the "did you mean" at their end.

Whatever the command line was given (a config, data, a checkpoint, a folder, a machine) and cannot use ends in a
:class:`UsageError`. Its message names the file, key or annotation and says what to do, so it is shown alone; any other
exception is a fault of code and keeps its traceback (:mod:`.command`).
"""

import contextlib
import difflib
from typing import Iterable, Iterator, List, Type

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InstallError",
    "LaunchError",
    "OutputError",
    "Refusal",
    "UsageError",
    "close_keys",
    "did_you_mean",
    "doing",
    "note",
    "shown",
    "usage",
]


class UsageError(Exception):
    """Something that the user gave cannot be used: the message names it and says what to do."""


class ConfigError(UsageError, ValueError):
    """A setting is wrong: the message names the key, where it stands, its value, and what is allowed."""


class Refusal(ConfigError):
    """Two settings that do not go together: with both the detector cannot be built, or it would ignore one of them.

    Args:
        one, other: the two sides, each with its key or argument, and its value.
        reason: why not, as a clause.
        remedy: what to do.
    """

    def __init__(self, one: str, other: str, reason: str, remedy: str = "leave one of them out"):
        super().__init__(one, other, reason, remedy)
        self.one, self.other, self.reason, self.remedy = one, other, reason, remedy

    def __str__(self):
        return f"{self.one} does not go with {self.other}, because {self.reason}; {self.remedy}."


class DataError(UsageError, ValueError):
    """Data that cannot be used as they are: a data set, detections, metrics, a recording.

    ``report`` holds all findings where a check of a data set raised it.
    """

    def __init__(self, message, report=None):
        super().__init__(message)
        self.report = report


class CheckpointError(UsageError, RuntimeError):
    """A checkpoint that cannot be used; the message says why."""


class OutputError(UsageError, OSError):
    """A folder that cannot be written to, is full, or holds another run."""


class LaunchError(UsageError, ValueError):
    """Processes or devices that were asked for and are not to be had."""


class InstallError(UsageError, ImportError):
    """A library that was asked for is not installed; the message has the command that installs it."""


@contextlib.contextmanager
def usage(what: str, *kinds: Type[Exception], error: Type[UsageError] = ConfigError) -> Iterator[None]:
    """What code of others raises about a setting becomes ``error``, which begins with ``what``, the setting's key.

    Only around calls that do nothing but use that setting, and only for the ``kinds`` that are known to be about it:
    a fault of code must keep its traceback.
    """
    try:
        yield
    except UsageError:
        raise
    except kinds as found:
        raise error(f"{what}: {found}") from found


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Notes ``what``, as in "while building the model", on whatever is raised inside, for the line that ends a command.

    The notes are in the exception's attribute ``doing``, the innermost first.
    """
    try:
        yield
    except Exception as error:
        note(error, what)
        raise


def note(error: Exception, what: str) -> None:
    """Add to ``error`` what was being done, see :func:`doing`."""
    error.doing = [*getattr(error, "doing", ()), what]


def shown(value) -> str:
    """``value`` as a message shows it: cut after 300 characters, and no error for a number of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write such a number out
        return "a number of thousands of digits"
    return text if len(text) <= 300 else f"{text[:300]}..."


def close_keys(key: str, known: Iterable[str], limit: int = 3) -> List[str]:
    """The ``known`` keys that ``key`` may have meant: same ending (a forgotten prefix), then similar spelling."""
    known = list(known)
    same_ending = [k for k in known if k.lower().endswith("." + key.lower())]
    by_lower_case = {k.lower(): k for k in known}
    similar = difflib.get_close_matches(key.lower(), list(by_lower_case), n=limit, cutoff=0.6)
    found = same_ending + [by_lower_case[k] for k in similar]
    return list(dict.fromkeys(found))[:limit]


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """`` Did you mean A, or B?`` for the end of an error message; an empty string if nothing is close."""
    found = close_keys(key, known)
    return f" Did you mean {', or '.join(found)}?" if found else ""
