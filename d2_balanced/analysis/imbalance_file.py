"""``imbalance.jsonl``: one line a window of iterations, with the counts of every stage and branch.

    {"first": 0, "last": 19, "counts": [{"stage": 0, "branch": 0, "images": [40], "proposal_ious": [..20 numbers], ..}]}

Lines of gradient norms are among them: ``{"iteration": 0, "gradients": {"branch 0": .., "branch 1": .., "sum": ..}}``.
Counts are sums, so windows are merged by adding them up.
"""

from __future__ import annotations

import json
import os
from collections import namedtuple
from typing import Dict, List, Tuple

import numpy as np

from ..engine.atomic import atomic_write
from ..engine.writers import read_metrics
from .imbalance_counts import CLASS_FIELDS, FIELDS

__all__ = ["FILE", "Recording", "append_line", "counts_line", "drop_from", "merge", "read_recording"]

FILE = "imbalance.jsonl"

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
    """Drop what a resumed run writes again, and a half-written line.

    Args:
        window: windows that begin here or later go;
        iteration: so do gradient norms from here on.
    """
    path = os.path.join(folder, FILE)
    lines = [
        line
        for line in read_metrics(path)
        if (line["first"] < window if "counts" in line else line["iteration"] < iteration)
    ]
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read_recording(folder: str) -> Recording:
    """What a run recorded. ``FileNotFoundError`` without a file, ``ValueError`` where it is not such a file."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no {FILE} in {folder!r}: train with ANALYSIS.RECORD True (train.record_imbalance.enabled=true), "
            "or make one of a checkpoint with python -m d2_balanced.analysis.inspect."
        )
    lines = read_metrics(path)
    try:
        windows = [(line["first"], line["last"], _arrays(line["counts"])) for line in lines if "counts" in line]
        gradients = [(line["iteration"], line["gradients"]) for line in lines if "gradients" in line]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a recording of this version: {error!r}.") from error
    if not windows:
        raise ValueError(f"{path} has no window of iterations: training ended before the first one was full.")
    return Recording(windows, gradients)


def _arrays(entries: List[dict]) -> Dict[Tuple[int, int], Dict[str, np.ndarray]]:
    names = (*FIELDS, *CLASS_FIELDS)
    return {(e["stage"], e["branch"]): {name: np.asarray(e[name], dtype=float) for name in names} for e in entries}


def merge(windows) -> Dict[Tuple[int, int], Dict[str, np.ndarray]]:
    """The sums over windows: ``{(stage, branch): {field: array}}``."""
    merged: Dict[Tuple[int, int], Dict[str, np.ndarray]] = {}
    for _, _, counts in windows:
        for key, fields in counts.items():
            of_key = merged.setdefault(key, {name: np.zeros_like(values) for name, values in fields.items()})
            for name, values in fields.items():
                of_key[name] += values
    return merged
