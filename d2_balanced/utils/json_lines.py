"""Files of one JSON object a line, such as a run's metrics.json: read whole, or refused with file and line."""

from __future__ import annotations

import json
import operator
import os
from typing import Any, Callable, List

from .errors import DataError

__all__ = ["read_json_lines", "read_metrics"]


def read_metrics(path: str) -> List[dict]:
    """The lines of a ``metrics.json``, in order; ``DataError`` for one without an iteration: ``read_json_lines``."""
    return read_json_lines(path, _with_iteration)


def _with_iteration(line: dict) -> dict:
    operator.index(line["iteration"])
    return line


def read_json_lines(path: str, parse: Callable[[dict], Any]) -> List[Any]:
    """``parse`` of each line of a file of JSON objects, in order; nothing of a missing or empty file.

    The end of the last line may be missing, as a killed run leaves it: then it is dropped. Raises ``DataError`` with
    file and line number for any other line that is no JSON object, or that ``parse`` raises ``KeyError``,
    ``TypeError`` or ``ValueError`` for.
    """
    if not os.path.isfile(path):
        return []
    with open(path, "rb") as file:  # as text, an error of decoding would name no line
        *lines, unfinished = file.read().split(b"\n")
    if _is_json(unfinished):
        lines.append(unfinished)
    return [_parsed(line, parse, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8"))
    except ValueError:
        return False
    return True


def _parsed(text: bytes, parse: Callable[[dict], Any], place: str) -> Any:
    try:
        line = json.loads(text.decode("utf-8"))
        if not isinstance(line, dict):
            raise TypeError(f"expected a JSON object, got {type(line).__name__}")
        return parse(line)
    except KeyError as error:
        raise DataError(f"{place}: {error} is missing. The file is damaged, or of another kind or version.") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {error}. The file is damaged, or of another kind or version.") from error
