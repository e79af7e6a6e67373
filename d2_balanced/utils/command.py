"""How every command ends that cannot go on, and with which status.

- :class:`UsageError`, the user's to mend: its message alone, status 2;
- anything else, a fault of code: the traceback, then one line that says what was being done, status 1.

With several processes the first one says it in full; another one says its number and the first line, and keeps the
traceback in its log file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import time
import traceback
from typing import Iterator, List

from .errors import UsageError

__all__ = ["FAULT", "MISUSE", "TRACEBACK", "called", "calling", "command", "command_line", "tell"]

FAULT, MISUSE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141  # exit statuses; the last two as of SIGINT and SIGPIPE
TRACEBACK = "D2_BALANCED_TRACEBACK"
"""Environment variable: where it is set, a :class:`UsageError` is told with its traceback, too."""

_SECONDS_FOR_THE_FIRST = 2.0

_called: List[str] = []


@contextlib.contextmanager
def calling(name: str) -> Iterator[None]:
    """Let the command that runs inside call itself ``name``, whatever it calls itself when started alone."""
    before, program = list(_called), sys.argv[0]
    _called[:], sys.argv[0] = [name], name  # the second is argparse's
    try:
        yield
    finally:
        _called[:], sys.argv[0] = before, program


def called(name: str) -> str:
    """What the command ``name`` calls itself to the user: as it was started."""
    return _called[0] if _called else name


def command_line() -> str:
    """The words that this process was started with, quoted as a shell takes them."""
    name, words = _called[0].split() if _called else [sys.argv[0]], sys.argv[1:]
    return shlex.join([*name, *(words[1:] if name[1:] == words[:1] else words)])  # `d2_balanced train` has its own word


@contextlib.contextmanager
def command(name: str) -> Iterator[None]:
    """Surrounds or decorates the main function of a command; ``name`` is how the user calls it.

    What is raised inside is told on stderr and in the log files, and ends in a ``SystemExit`` with the status as its
    ``code`` and the message as its text.
    """
    try:
        yield
    except UsageError as error:
        _stop(name, error, str(error), MISUSE, bool(os.environ.get(TRACEBACK)))
    except BrokenPipeError:  # whoever reads the output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it ends
        raise SystemExit(BROKEN_PIPE) from None
    except KeyboardInterrupt:  # where there is something to save, training has a handler of its own
        tell(name, "interrupted.")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        place = ", ".join(getattr(error, "doing", ())) or "at work"
        _stop(name, error, f"stopped by the {type(error).__name__} above, {place}.", FAULT, True)


def _stop(name: str, error: Exception, message: str, status: int, with_traceback: bool) -> None:
    name = called(name)
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)) if with_traceback else ""
    files = _keep_in_logs(f"{lines}{name}: error: {message}")
    if lines and _process() and files:
        first_line = (str(error) or "no details").splitlines()[0]
        message = f"{type(error).__name__}: {first_line} ({_place(error)}; the traceback is in {files[0]})"
        lines = ""
    tell(name, message, lines)
    stop = SystemExit(message)
    stop.code = status
    raise stop


def tell(name: str, message: str, before: str = "") -> None:
    """Write ``message`` to stderr as the last word of the command ``name``, after ``before`` (a traceback).

    Another process writes one line. It waits a little, as a launcher may end the others as soon as one has ended, and
    the first one is to speak.
    """
    name, process = called(name), _process()
    if process:
        message = f"(process {process}) {message.splitlines()[0] if message else ''}"
    sys.stderr.write(f"{before}{name}: error: {message}\n")  # at once, so that processes do not write into one line
    sys.stderr.flush()
    if process:
        time.sleep(_SECONDS_FOR_THE_FIRST)


def _process() -> int:
    """The number of this process, also where there is no group of processes yet."""
    comm = sys.modules.get("detectron2.utils.comm")  # not imported: the doctor runs where detectron2 is missing
    return (comm.get_rank() if comm else 0) or int(os.environ.get("RANK", 0))


def _place(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where.filename}, line {where.lineno}"


def _keep_in_logs(text: str) -> List[str]:
    """Write ``text`` to the log files of a run, if there are any; returns their names. The terminal has stderr."""
    files = []
    for handler in logging.getLogger("d2_balanced").handlers:
        name = getattr(getattr(handler, "stream", None), "name", "")
        if isinstance(name, str) and os.path.isfile(name):
            handler.handle(logging.LogRecord("d2_balanced", logging.ERROR, __file__, 0, "%s", (text,), None))
            files.append(name)
    return files
