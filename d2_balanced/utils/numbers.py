"""Which numbers a setting may be: one way to check them, for components, for yacs and for LazyConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Iterator, NamedTuple, NewType, Optional, Tuple

from .errors import ConfigError, shown

__all__ = ["Extended", "Range", "check_ranges", "is_number", "require", "require_finite"]

Extended = NewType("Extended", float)
"""Annotates an argument for which infinity has a meaning; its constructor says which (``require(..., also=...)``)."""

_LARGEST = 2**63 - 1  # what torch's and NumPy's whole numbers hold


def is_number(value) -> bool:
    """Whether ``value`` is a real number; booleans are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value) -> bool:
    return abs(value) <= _LARGEST if isinstance(value, Integral) else math.isfinite(value)


class Range(NamedTuple):
    """Finite numbers within limits; ``also`` are values outside of them with a meaning of their own."""

    above: Optional[float] = None
    at_least: Optional[float] = None
    below: Optional[float] = None
    at_most: Optional[float] = None
    integer: bool = False
    also: Tuple[float, ...] = ()

    def holds(self, value) -> bool:
        """Whether ``value`` is such a number."""
        if not is_number(value):
            return False
        return value in self.also or (not self._lacking(value) and self._within(value))

    def expected(self, value) -> str:
        """What ``value`` should be, as in "a whole number, 1 or more"; the kind is said where ``value`` lacks it."""
        parts = [part for part in (self._lacking(value), self._limits()) if part]
        return " or ".join([", ".join(parts), *map(str, self.also)])

    def _lacking(self, value) -> str:
        if not is_number(value):
            return "a whole number" if self.integer else "a number"
        if self.integer and not isinstance(value, Integral):
            return "a whole number"
        if _is_finite(value):
            return ""
        return f"a whole number below {_LARGEST + 1}" if isinstance(value, Integral) else "a finite number"

    def _within(self, value) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def _limits(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        low = f"above {self.above}" if self.above is not None else ""
        if self.at_least is not None:
            low = f"{self.at_least} or more"
        high = f"below {self.below}" if self.below is not None else ""
        if self.at_most is not None:
            high = f"at most {self.at_most}"
        return " and ".join(filter(None, (low, high)))


def require(owner: Any, argument: str, value, **limits):
    """``value``, if it is a number in the range of ``limits``, the fields of :class:`Range`; for constructors.

    Without limits: any finite number. Raises ``ValueError`` with the class of ``owner`` (or ``owner`` itself, a name),
    the argument, what is allowed and the value.
    """
    allowed = Range(**limits)
    if not allowed.holds(value):
        name = owner if isinstance(owner, str) else type(owner).__name__
        raise ValueError(f"{name}: {argument} must be {allowed.expected(value)}, got {shown(value)}")
    return value


def check_ranges(values: Mapping, ranges: Mapping, where: str = "") -> None:
    """Raise ``ConfigError`` for the first of ``{key: value}`` with a number outside of ``{key: Range}``.

    All numbers in lists and mappings are asked. What is no number is passed over: it has a type, which is checked.
    """
    for key, value in values.items():
        for number in _numbers_in(value):
            if not ranges[key].holds(number):
                raise ConfigError(f"{key}{where}: must be {ranges[key].expected(number)}, got {shown(number)}.")


def require_finite(value, key: str, default=None, where: str = "") -> None:
    """Raise ``ConfigError`` for a ``value`` with a number in it that is NaN or infinite, or too large for torch.

    A setting whose ``default`` is such a number takes them.
    """
    if not all(map(_is_finite, _numbers_in(default))):
        return
    check_ranges({key: value}, {key: Range()}, where)


def _numbers_in(value) -> Iterator[Real]:
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for each in value:
            yield from _numbers_in(each)
    elif is_number(value):
        yield value
