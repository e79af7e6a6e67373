"""What is tried for one key: listed values, or a range of numbers."""

from __future__ import annotations

import math
from typing import Any, List, NamedTuple, Optional, Tuple, Union

from ..utils.errors import ConfigError

__all__ = ["Choices", "Range", "Search", "parse_rates", "parse_search", "parse_space"]

_DIGITS = 4  # of a number that is tried: it can be read, and typed
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


class Choices(NamedTuple):
    """Listed values, as they are written on a command line."""

    values: Tuple[str, ...]

    @property
    def checked(self) -> Tuple[str, ...]:
        """The values that have to be accepted by the config."""
        return self.values

    def at(self, position: float) -> str:
        """The value at ``position``, from 0 to below 1, in the list."""
        return self.values[int(position * len(self.values))]

    def text(self, value: Any) -> str:
        return value

    def is_edge(self, value: Any) -> bool:
        """Whether a better value may lie beyond: at either end of listed numbers."""
        numbers = [_number(text) for text in self.values]
        return None not in numbers and _number(value) in (min(numbers), max(numbers))


class Range(NamedTuple):
    """All numbers from ``low`` to ``high``; whole ones where both are; evenly in their logarithm with ``log``."""

    low: float
    high: float
    log: bool
    whole: bool

    @property
    def checked(self) -> Tuple[str, ...]:
        return self.text(self.low), self.text(self.high)

    def at(self, position: float) -> float:
        if self.log:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + (self.high - self.low) * position
        return round(value) if self.whole else value

    def text(self, value: Any) -> str:
        return str(int(value)) if self.whole else repr(float(f"{value:.{_DIGITS}g}"))

    def is_edge(self, value: Any) -> bool:
        """Within a tenth of the range of one of its ends."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return not low + 0.1 * (high - low) < value < high - 0.1 * (high - low)


class Search(NamedTuple):
    """``space`` is searched for ``key``, in the arm of this name; None: in all arms."""

    arm: Optional[str]
    key: str
    space: Union[Choices, Range]


def parse_search(text: str) -> Search:
    """``"[ARM:]KEY=SPACE"``; ``ConfigError`` for what is written otherwise, and as :func:`parse_space`."""
    place, _, space = text.partition("=")
    arm, colon, key = place.rpartition(":")
    if not (key and space) or (colon and not arm):
        raise ConfigError(f"--search {text}: write KEY=a,b,c or KEY=LOW..HIGH; for one arm ARM:KEY=...")
    return Search(arm if colon else None, key, parse_space(key, space))


def parse_rates(text: str) -> Union[Choices, Range]:
    """The space of ``--lr``: numbers above 0, evenly in their logarithm in a range."""
    return parse_space("--lr", text, log=True, real=True)


def parse_space(key: str, text: str, *, log: bool = False, real: bool = False):
    """``"a,b,c"`` (commas in brackets separate nothing) or ``"LOW..HIGH"``, ``"log:LOW..HIGH"``.

    Args:
        log: a range is one of logarithms, also without "log:".
        real: numbers above 0, of which a range is never one of whole numbers (a learning rate).

    Raises ``ConfigError``, which names ``key``, for what is no such list or range, or leaves nothing to choose.
    """
    if ".." in text:
        return _range(key, text, log, real)
    values = tuple(word.strip() for word in _split(text))
    if not all(values) or len(set(values)) < len(values) or len(values) < 2:
        raise ConfigError(f"{key}={text}: list two or more different values, as a,b,c, or a range, as LOW..HIGH.")
    if real:
        bad = [value for value in values if not _is_positive(value)]
        if bad:
            raise ConfigError(f"{key}={text}: {bad[0]!r} is no finite number above 0.")
    return Choices(values)


def _range(key: str, text: str, log: bool, real: bool) -> Range:
    ends = text[len("log:"):] if text.startswith("log:") else text
    log = log or ends != text
    low, _, high = ends.partition("..")
    numbers = _number(low), _number(high)
    if None in numbers or not numbers[0] < numbers[1]:
        raise ConfigError(f"{key}={text}: a range is LOW..HIGH, two finite numbers of which the second is higher.")
    if (log or real) and numbers[0] <= 0:
        raise ConfigError(f"{key}={text}: the low end has to be above 0.")
    whole = not real and all(end.strip().lstrip("+-").isdigit() for end in (low, high))
    return Range(*numbers, log, whole)


def _split(text: str) -> List[str]:
    words, depth = [""], 0
    for character in text:
        depth += _BRACKETS.get(character, 0)
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return words


def _number(text):
    """The finite number that ``text`` is; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_positive(text: str) -> bool:
    number = _number(text)
    return number is not None and number > 0
