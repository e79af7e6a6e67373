"""From rows to runs: the resolved config of every row, and which rows are one run."""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from detectron2.config import CfgNode

from ..engine.augmented_test import SUFFIX
from ..engine.experiment import Experiment, OwnData
from ..engine.open import open_experiment
from ..evaluation.coco import INFERENCE
from ..utils.errors import ConfigError
from .files import ROOT, Row, Table
from .identity import run_key

__all__ = ["Options", "PlannedRow", "Run", "plan_rows", "runs_of", "short_path", "train_program"]

TRAIN_NET = os.path.join(ROOT, "train_net.py")


class Options(NamedTuple):
    """What holds for all rows: the scale, data given by paths, extra overrides, GPUs of a run."""

    scale: str = "tiny"
    data: OwnData = OwnData()
    overrides: Mapping[str, Any] = {}
    num_gpus: int = 1


@dataclass(frozen=True, eq=False)
class Run:
    """A training, or with ``trained`` an evaluation of its weights; one for every seed.

    With ``others`` it evaluates an ensemble. ``key`` is the hash of what the result depends on (``identity.run_key``),
    ``name`` that with a readable slug.
    """

    name: str
    key: str
    config_file: str
    overrides: Dict[str, Any]
    options: Options
    cfg: CfgNode
    trained: Optional["Run"] = None
    others: Tuple["Run", ...] = ()

    @property
    def eval_of(self) -> str:
        """What is evaluated, for :func:`run_key`; empty for a training."""
        return evaluated_key(self.trained, self.others)

    def words(self, **more) -> List[str]:
        """The overrides as words of a command line; ``more`` wins."""
        return [str(word) for pair in {**self.overrides, **more}.items() for word in pair]

    def experiment(self) -> Experiment:
        """A new experiment of the run's config."""
        return open_experiment(self.config_file, self.words(), self.options.data)

    def command(
        self, folder: str, seed: int, *, weights: str = "", others: Sequence[str] = (), evaluate: bool = False
    ) -> List[str]:
        """The command line of a run in ``folder``; training goes on from the folder's last checkpoint.

        Args:
            weights: the checkpoint to evaluate, of a run that only evaluates.
            others: those that are evaluated with it.
            evaluate: do not train, evaluate the folder's last checkpoint.
        """
        mode = ["--eval-only"] if weights else ["--eval-only", "--resume"] if evaluate else ["--resume"]
        data = self.options.data._asdict().items()
        data = [word for name, path in data if path for word in (f"--{name.replace('_', '-')}", path)]
        gpus = ["--num-gpus", str(self.options.num_gpus)] if self.options.num_gpus != 1 else []
        more = {"MODEL.WEIGHTS": weights} if weights else {}
        mode += [word for path in others for word in ("--ensemble", path)]
        program = [*train_program(), "--config-file", short_path(self.config_file)]
        return [*program, *mode, "--output-dir", folder, *data, *gpus, *self.words(**more, SEED=seed)]

    @property
    def results(self) -> str:
        """The folder of the run's results, below its own: those with test-time augmentation, where it has that."""
        return INFERENCE + SUFFIX if self.cfg.TEST.AUG.ENABLED else INFERENCE

    @property
    def test_set(self) -> str:
        """The name of the evaluated data set; empty where nothing is evaluated."""
        if self.options.data.val_json:
            return "own_val"
        return "" if self.options.data.train_json or not self.cfg.DATASETS.TEST else self.cfg.DATASETS.TEST[0]


class PlannedRow(NamedTuple):
    """A row of a table with its run, or the reason why there is none here."""

    table: Table
    row: Row
    run: Optional[Run]
    reason: str = ""


def plan_rows(selection: Sequence, options: Options) -> List[PlannedRow]:
    """The rows of ``files.select_tables`` in their order; rows with equal configs share one ``Run``.

    Raises ``ConfigError`` for a config or an override that is refused, naming table and row. Rows that say why they
    cannot run have a reason in place of a run.
    """
    runs: Dict[str, Run] = {}
    return [_plan(table, row, options, runs) for table, rows in selection for row in rows]


def runs_of(planned: Sequence[PlannedRow]) -> List[Run]:
    """Every run once: those of the rows, and the trainings that evaluated rows need before them."""
    runs = [run for row in planned if row.run for run in (row.run.trained, *row.run.others, row.run) if run]
    return list(dict.fromkeys(runs))


def evaluated_key(trained: Optional[Run], others: Sequence[Run]) -> str:
    """The keys of the trainings whose weights are evaluated together."""
    return "+".join(run.key for run in (trained, *others) if run)


def _plan(table: Table, row: Row, options: Options, runs: Dict[str, Run]) -> PlannedRow:
    if row.why_not(options.scale):
        return PlannedRow(table, row, None, row.why_not(options.scale))
    try:
        trained = _run(table, row.trained, options, runs) if row.trained else None
        others = tuple(_run(table, other, options, runs) for other in row.others)
        return PlannedRow(table, row, _run(table, row, options, runs, trained, others))
    except ConfigError as error:
        raise ConfigError(f"{table.label}, row {row.name!r} at scale {options.scale}: {error}") from error


def _run(table: Table, row: Row, options: Options, runs: Dict[str, Run], trained: Optional[Run] = None,
         others: Tuple[Run, ...] = ()) -> Run:
    """The row's run; the one in ``runs`` that has the same key, or a new one that is put there."""
    overrides = {**row.settings(options.scale), **options.overrides}
    words = [str(word) for pair in overrides.items() for word in pair]
    config_file = os.path.join(ROOT, row.config_file(options.scale))
    cfg = _resolved(config_file, tuple(words), options.data)
    key = run_key(cfg, evaluated_key(trained, others))
    if key not in runs:
        slug = re.sub(r"[^a-z0-9]+", "-", f"{table.paper} {table.name.replace('_', '')} {row.name}".lower()).strip("-")
        runs[key] = Run(f"{slug[:70]}-{key}", key, config_file, overrides, options, cfg, trained, others)
    return runs[key]


@functools.lru_cache(maxsize=None)
def _resolved(config_file: str, words: Sequence[str], data: OwnData) -> CfgNode:
    return open_experiment(config_file, words, data).cfg


def train_program() -> List[str]:
    """The words that start ``train_net.py``, or where there is no checkout ``d2_balanced train``, with this Python."""
    return [sys.executable, *([short_path(TRAIN_NET)] if os.path.isfile(TRAIN_NET) else ["-m", "d2_balanced", "train"])]


def short_path(path: str) -> str:
    """Relative to the working directory where that is shorter."""
    return min(path, os.path.relpath(path), key=len)
