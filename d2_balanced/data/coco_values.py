"""What a single value of a COCO record means: numbers that are written as text, ids, names, flags.

One reading for the check, for training and for evaluation. What is lost in no reading is accepted (``7.0`` and ``"7"``
are the id 7); what would have to be guessed is not.
"""

import math
import os
import re

__all__ = ["as_flag", "as_number", "as_text", "id_key", "is_file_name", "whole_number"]

_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,17}")


def as_number(value):
    """A float; NaN for what is no number (text and booleans are none) or too large for one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def whole_number(value):
    """An int from an int, a float without fraction, or its plain decimal text; None for everything else."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    return None


def id_key(value):
    """What ids are compared by: the number that they are or write, else their text. None if it can be no id."""
    number = whole_number(value)
    return number if number is not None else value if isinstance(value, str) else None


def as_text(value):
    """A name: text as it is, numbers (digits as classes) as they are written; None for what is no name."""
    if isinstance(value, str):
        return value if value.strip() and _encodes(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(as_number(value)):
        return None
    return str(value)


def as_flag(value):
    """0 or 1 from numbers, booleans, their text, or null (0); None for everything else."""
    value = 0 if value is None else int(value) if isinstance(value, bool) else whole_number(value)
    return value if value in (0, 1) else None


def is_file_name(value):
    """Whether a file can be called so."""
    try:
        return isinstance(value, str) and bool(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _encodes(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character, as "\ud800" in JSON
        return False
    return True
