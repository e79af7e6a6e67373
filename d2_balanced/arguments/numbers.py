"""Numbers in a range, as argparse's ``type``: what is outside is told with the option's name."""

import argparse
import math

__all__ = ["count", "natural", "part", "positive", "score"]


def count(text):
    """A whole number of at least 1."""
    return _at_least(1, text)


def natural(text):
    """A whole number of at least 0."""
    return _at_least(0, text)


def score(text):
    """A number from 0 to 1."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise argparse.ArgumentTypeError(f"has to be from 0 to 1, not {text}")
    return value


def part(text):
    """A number from 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"has to be from 0 and below 1, not {text}")
    return value


def positive(text):
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"has to be above 0, not {text}")
    return value


def _at_least(least, text):
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"has to be {least} or more, not {text}")
    return value
