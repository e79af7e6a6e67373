"""One training of a tuning: the command that makes it, and what its folder says of how it went."""

from __future__ import annotations

import json
import math
import os
import shlex
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..engine.experiment import OwnData
from ..engine.writers import is_evaluation
from ..tables.execute import LOG
from ..tables.plan import train_program
from ..tables.state import FINAL, is_evaluated
from ..utils.errors import DataError
from ..utils.json_lines import read_metrics
from .arms import Arm

__all__ = ["Outcome", "Settings", "Trial", "training_words"]

DIVERGED = 0.0  # the score of a trial whose loss became infinite or NaN
_NONFINITE = "nonfinite_loss.json"


class Settings(NamedTuple):
    """What is the same in all trials: data, metric (higher is better), seed, and more words for ``train``."""

    own_data: OwnData
    metric: str
    seed: int
    more: Tuple[str, ...] = ()


class Outcome(NamedTuple):
    """``note``: "diverged in iteration 12"; empty for a training that ended well."""

    score: float
    note: str = ""


def training_words(arm: Arm, overrides: Sequence[str], settings: Settings, folder: str) -> List[str]:
    """The arguments of ``train`` for the arm, with more overrides, into a folder."""
    data = [(f"--{name.replace('_', '-')}", path) for name, path in settings.own_data._asdict().items() if path]
    added = [word for name in arm.fragments for word in ("--add", name)]
    given = ["--config-file", arm.config_file, *added, "--output-dir", folder, *sum(data, ())]
    return [*given, *settings.more, *arm.overrides, *overrides]


class Trial(NamedTuple):
    """What :func:`d2_balanced.tables.execute.execute` runs: see :class:`d2_balanced.tables.state.Task`."""

    arm_name: str
    number: int
    total: int
    folder: str
    arguments: Tuple[str, ...]
    shown: str
    metric: str
    source: Optional["Trial"] = None  # trainings need no other one

    @property
    def label(self) -> str:
        return f"{self.arm_name}, trial {self.number + 1} of {self.total}, {self.shown}"

    def command(self) -> List[str]:
        """It goes on where an interrupted one was."""
        return [*train_program(), "--resume", *self.arguments]

    def prepare(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "trial.txt"), "w", encoding="utf-8") as file:
            file.write(f"{self.label}\nd2_balanced train {shlex.join(self.arguments)}\n")

    def is_finished(self) -> bool:
        return self.outcome() is not None

    def outcome(self) -> Optional[Outcome]:
        """What the folder says; None while there is something left to do.

        Raises ``DataError`` where the evaluation does not have the metric.
        """
        diverged = self._diverged()
        if diverged:
            return Outcome(DIVERGED, diverged)
        if not is_evaluated(self.folder, os.path.join(self.folder, FINAL)):
            return None
        return Outcome(self._score())

    def _diverged(self) -> str:
        path = os.path.join(self.folder, _NONFINITE)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                return f"diverged in iteration {json.load(file).get('iteration')}"
        last = _last_line(os.path.join(self.folder, LOG))  # weights that are not finite, although the loss was
        return "diverged: weights are not finite" if "stopped by the FloatingPointError above" in last else ""

    def _score(self) -> float:
        path = os.path.join(self.folder, "metrics.json")
        evaluations = [line for line in read_metrics(path) if is_evaluation(line)]
        metrics: Dict[str, float] = evaluations[-1] if evaluations else {}
        value = metrics.get(self.metric)
        if value is None or math.isnan(value):
            there = ", ".join(sorted(name for name in metrics if "/" in name))
            problem = "missing" if value is None else "undefined"
            raise DataError(f"{path}: {self.metric} is {problem}; there are {there}.")
        return float(value)


def _last_line(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines: Sequence[str] = file.read().strip().splitlines()
    return lines[-1] if lines else ""
