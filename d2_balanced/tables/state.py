"""What the folder of a run holds, and finished runs of other folders that are taken over."""

from __future__ import annotations

import os
from glob import escape, glob
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from detectron2.config import CfgNode

from ..engine.from_yacs import YacsExperiment
from ..engine.open import open_experiment
from ..evaluation.coco import INFERENCE
from ..utils.errors import ConfigError
from ..utils.find_files import find_below
from .identity import run_key
from .plan import Run

__all__ = ["FINAL", "Task", "adopt", "finished_runs", "keep_final_only", "run_folder"]

FINAL = "model_final.pth"
CONFIG = "config.yaml"


def run_folder(output: str, run: Run, seed: int) -> str:
    """``output/runs/<name>/seed<k>``; a folder there with the same key keeps the name that another table gave it."""
    runs = os.path.join(output, "runs")
    same = sorted(glob(os.path.join(escape(runs), f"*-{run.key}")))
    return os.path.join(same[0] if same else os.path.join(runs, run.name), f"seed{seed}")


class Task(NamedTuple):
    """A run with a seed, in its folder; ``source`` is the task whose weights it evaluates, ``others`` with it."""

    run: Run
    seed: int
    folder: str
    source: Optional["Task"] = None
    others: Tuple["Task", ...] = ()

    @property
    def label(self) -> str:
        return f"{self.run.name} seed {self.seed}"

    @property
    def weights(self) -> str:
        """The checkpoint that the task ends with, or that it evaluates."""
        return os.path.join((self.source or self).folder, FINAL)

    def is_trained(self) -> bool:
        return os.path.exists(os.path.join(self.folder, FINAL))

    def is_finished(self) -> bool:
        """Whether the folder has the results of this very config: evaluated after the last checkpoint was written.

        Raises ``ConfigError`` if they are those of another config.
        """
        evaluated = (self.weights, *(other.weights for other in self.others))
        if not all(is_evaluated(self.folder, weights, self.run.results) for weights in evaluated):
            return False
        found = saved_key(self.folder, self.run.eval_of)
        if found != self.run.key:
            raise ConfigError(f"{self.folder} holds the results of another config ({found}, not {self.run.key}): its "
                              f"{CONFIG} or the data was changed since. Move it away, and run this again.")
        return True

    def command(self) -> List[str]:
        """What is left to do here, as a command line."""
        weights = self.weights if self.source else ""
        others = [other.weights for other in self.others]
        return self.run.command(self.folder, self.seed, weights=weights, others=others, evaluate=self.is_trained())

    def prepare(self) -> None:
        """Make the folder. An evaluation saves no config of its own, so that is done here."""
        os.makedirs(self.folder, exist_ok=True)
        if self.source:
            Path(self.folder, CONFIG).write_text(self.run.cfg.dump(), encoding="utf-8")


def is_evaluated(folder: str, weights: str, results: str = INFERENCE) -> bool:
    """Whether the metrics in ``folder`` are newer than the weights; a run may have been killed in between."""
    metrics = glob(os.path.join(escape(folder), results, "*", "metrics.json"))
    if not (metrics and os.path.exists(weights) and os.path.exists(os.path.join(folder, CONFIG))):
        return False
    return max(map(os.path.getmtime, metrics)) >= os.path.getmtime(weights)


def saved_key(folder: str, eval_of: str = "") -> str:
    """The key of the run in ``folder``, from its config.yaml; ``ConfigError`` if that is no yacs config of today."""
    return run_key(_saved_config(folder), eval_of)


def _saved_config(folder: str) -> CfgNode:
    path = os.path.join(folder, CONFIG)
    experiment = open_experiment(path)
    if not isinstance(experiment, YacsExperiment):
        raise ConfigError(f"{path} is of a LazyConfig, which no row of a table has.")
    return experiment.cfg


def finished_runs(folder: str) -> Tuple[Dict[Tuple[str, int], str], List[str]]:
    """``({(key, seed): folder of a finished training}, [why others below are none])``, anywhere below ``folder``."""
    if not os.path.isdir(folder):
        raise ConfigError(f"--adopt {folder}: there is no such folder.")
    found, others = {}, []
    for path in map(os.path.dirname, find_below(folder, CONFIG)):
        try:
            cfg = _saved_config(path)
        except ConfigError as error:
            others.append(f"{path}: {str(error).splitlines()[0]}")
            continue
        if is_evaluated(path, os.path.join(path, FINAL)):
            found.setdefault((run_key(cfg), cfg.SEED), path)
        else:
            others.append(f"{path}: not finished")
    return found, others


def adopt(task: Task, finished: Dict[Tuple[str, int], str]) -> str:
    """Link the files of a finished run into the task's folder, if that is new; returns where they are, or ""."""
    path = finished.get((task.run.key, task.seed), "")
    if task.source or not path or (os.path.isdir(task.folder) and os.listdir(task.folder)):
        return ""
    os.makedirs(task.folder, exist_ok=True)
    for name in os.listdir(path):
        os.symlink(os.path.abspath(os.path.join(path, name)), os.path.join(task.folder, name))
    return path


def keep_final_only(folder: str) -> None:
    """Delete all checkpoints of a finished run but the last one; links of adopted runs are only unlinked."""
    for path in glob(os.path.join(escape(folder), "model_*.pth")):
        if os.path.basename(path) != FINAL:
            os.remove(path)
