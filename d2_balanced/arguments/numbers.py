"""Numbers in a range, as argparse's ``type``: what is outside is told with the option's name, before time is spent.

Every option that is a number has one of these (``tests/test_main.py``).
"""

import argparse

__all__ = ["at_least", "count", "natural", "part", "positive", "score", "seed", "share"]

_LARGEST = 2**32 - 1  # of a seed: NumPy's limit


def at_least(least, largest=None):
    """The type of whole numbers from ``least`` on, or to ``largest``."""

    def whole_number(text):
        value = int(text)
        if value < least or (largest is not None and value > largest):
            wanted = f"{least} or more" if largest is None else f"from {least} to {largest}"
            raise argparse.ArgumentTypeError(f"has to be {wanted}, not {text}")
        return value

    return _named("whole number", whole_number)


def _real(holds, wanted):
    """The type of numbers that ``holds`` is true of; of NaN every comparison is false."""

    def number(text):
        value = float(text)
        if not holds(value):
            raise argparse.ArgumentTypeError(f"has to be {wanted}, not {text}")
        return value

    return _named("number", number)


def _named(name, function):
    function.__name__ = name  # argparse says "invalid NAME value"
    return function


count = at_least(1)
natural = at_least(0)
seed = at_least(0, _LARGEST)
score = _real(lambda value: 0 <= value <= 1, "from 0 to 1")
part = _real(lambda value: 0 <= value < 1, "from 0 and below 1")
share = _real(lambda value: 0 < value < 1, "above 0 and below 1")
positive = _real(lambda value: 0 < value < float("inf"), "a finite number above 0")
