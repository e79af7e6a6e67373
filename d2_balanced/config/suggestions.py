"""The one error of the configuration, and the "did you mean" at its end."""

import difflib
from typing import Iterable, List

__all__ = ["ConfigError", "did_you_mean", "close_keys"]


class ConfigError(ValueError):
    """A setting is wrong: the message names the key, where it stands, its value, and what is allowed."""


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
