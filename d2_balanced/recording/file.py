"""``imbalance.jsonl``: one line a window of iterations, with the counts of every stage and branch.

    {"first": 0, "last": 19, "counts": [{"stage": 0, "branch": 0, "images": [40], "proposal_ious": [..20 numbers], ..}]}

Lines of gradient norms are among them: ``{"iteration": 0, "gradients": {"branch 0": .., "branch 1": .., "sum": ..}}``.
Counts are sums, so windows are merged by adding them up.
"""

from __future__ import annotations

import json
import operator
import os
from collections import namedtuple
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ..utils.atomic import atomic_write
from ..utils.errors import DataError
from ..utils.json_lines import read_json_lines
from .counts import CLASS_FIELDS, FIELDS

__all__ = [
    "FILE",
    "Recording",
    "append_line",
    "counts_line",
    "drop_from",
    "find_recording",
    "merge",
    "read_recording",
]

FILE = "imbalance.jsonl"
_LATER_FIELDS = [name for name in FIELDS if name.startswith(("target_", "best_"))]  # which older files do not have

Recording = namedtuple("Recording", ["windows", "gradients"])
"""``windows``: list of ``(first, last, {(stage, branch): {field: array}})``.
``gradients``: list of ``(iteration, {name: norm})``."""


def counts_line(first: int, last: int, counts) -> dict:
    """The line of a window; ``counts``: ``{(stage, branch): ImbalanceCounts}``."""
    entries = [{"stage": key[0], "branch": key[1], **counts[key].as_lists()} for key in sorted(counts)]
    return {"first": first, "last": last, "counts": entries}


def append_line(folder: str, line: dict) -> None:
    """Add one line to the folder's file."""
    with open(os.path.join(folder, FILE), "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def drop_from(folder: str, window: int, iteration: int) -> None:
    """Drop the lines that a resumed run will write again, and a half-written line.

    Args:
        window: windows that begin at this iteration or later are dropped;
        iteration: gradient norms from this iteration on are dropped.

    Raises ``DataError`` with file and line number where the file is damaged elsewhere than at its end.
    """
    path = os.path.join(folder, FILE)

    def kept(line):
        stays = line["first"] < window if "counts" in line else line["iteration"] < iteration
        return json.dumps(line) + "\n" if stays else ""

    lines = read_json_lines(path, kept)
    with atomic_write(path, "w") as file:
        file.writelines(lines)


def read_recording(folder: str) -> Recording:
    """What a run recorded. ``DataError`` without a file, or where it is not such a file."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        raise DataError(
            f"There is no {FILE} in {folder!r}: train with ANALYSIS.RECORD True (train.record_imbalance.enabled=true), "
            "or make one of a checkpoint with python -m d2_balanced.analysis.training_samples."
        )
    recording = find_recording(folder)
    if recording is None:
        raise DataError(f"{path} has no window of iterations: training ended before the first one was full.")
    return recording


def find_recording(folder: str) -> Optional[Recording]:
    """What a run recorded; ``None`` without a file, or without a window in it. ``DataError`` for a damaged file."""
    path = os.path.join(folder, FILE)
    lines = read_json_lines(path, _read_line)
    windows = [line for kind, line in lines if kind == "window"]
    if len({len(fields[name]) for _, _, counts in windows for fields in counts.values() for name in CLASS_FIELDS}) > 1:
        raise DataError(f"{path}: its windows differ in the number of classes, so they are of several runs.")
    return Recording(windows, [line for kind, line in lines if kind == "gradients"]) if windows else None


def _read_line(line: Dict[str, Any]):
    """``(kind, entry of Recording)``; ``KeyError``, ``TypeError`` or ``ValueError`` for another line."""
    if "gradients" in line:
        norms = {name: float(norm) for name, norm in dict(line["gradients"]).items()}
        return "gradients", (operator.index(line["iteration"]), norms)
    counts = {(entry["stage"], entry["branch"]): _arrays(entry) for entry in line["counts"]}
    if not any(stage == 0 for stage, _ in counts):
        raise ValueError("there are no counts of the first stage")
    return "window", (operator.index(line["first"]), operator.index(line["last"]), counts)


def _arrays(entry: Dict[str, Any]) -> Dict[str, np.ndarray]:
    sizes = {**FIELDS, **{name: len(entry[CLASS_FIELDS[0]]) for name in CLASS_FIELDS}}
    entry = {**{name: np.zeros(FIELDS[name]) for name in _LATER_FIELDS}, **entry}
    arrays = {name: np.asarray(entry[name], dtype=float) for name in sizes}
    for name, values in arrays.items():
        if values.shape != (sizes[name],):
            raise ValueError(f"{name} should have {sizes[name]} numbers, and has the shape {values.shape}")
    return arrays


def merge(windows) -> Dict[Tuple[int, int], Dict[str, np.ndarray]]:
    """The sums over windows: ``{(stage, branch): {field: array}}``."""
    merged: Dict[Tuple[int, int], Dict[str, np.ndarray]] = {}
    for _, _, counts in windows:
        for key, fields in counts.items():
            of_key = merged.setdefault(key, {name: np.zeros_like(values) for name, values in fields.items()})
            for name, values in fields.items():
                of_key[name] += values
    return merged
