"""The best checkpoint of a run by a metric, and a stop when it no longer improves."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import Dict, List, Optional

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..utils.atomic import atomic_write
from ..utils.errors import DataError
from ..utils.json_file import read_json
from ..utils.json_lines import read_metrics

__all__ = ["BestCheckpoint"]

logger = logging.getLogger(__name__)


class BestCheckpoint(HookBase):
    """After each evaluation: ``model_best.pth`` if ``metric`` is the highest so far, and its history in ``best.json``.

    The history is read back at a resume, from metrics.json if need be, so the best value is not forgotten; evaluations
    that the resumed run will do again are dropped from it. A metric that is missing, NaN, or negative (COCO's -1: nothing to evaluate) never counts.

    Args:
        checkpointer: ``save(name, iteration=...)`` must not tag ``model_best`` as the last checkpoint.
        metric: name of a value of the evaluation, such as "bbox/AP"; higher is better.
        patience: training ends after this many evaluations in a row without a new best value; 0 never ends it.
    """

    FILE = "best.json"
    repeats_last_step = True

    def __init__(self, checkpointer, metric: str = "bbox/AP", patience: int = 0):
        if patience < 0:
            raise ValueError(f"BestCheckpoint: patience must be 0 (off) or more evaluations, got {patience}.")
        self._checkpointer = checkpointer
        self._metric = metric
        self._patience = patience
        self._path = os.path.join(checkpointer.save_dir, self.FILE)
        self.best: Optional[Dict[str, float]] = None
        self.evaluations: List[Dict[str, float]] = []

    def before_train(self):
        if self.trainer.start_iter > 0 and comm.is_main_process():
            self._read()
        if not self.trainer.ended_early:  # what ended is trained on by will
            self._end_without_progress(self.trainer.start_iter - 1)  # where a killed run found no time to end

    def after_step(self):
        iteration, metrics = self.trainer.evaluation
        if iteration != self.trainer.iter:
            return
        self.trainer.collect_state()
        if comm.is_main_process() and metrics:
            self._judge(metrics.get(self._metric), metrics)
        self._end_without_progress(iteration)

    def _judge(self, value: Optional[float], metrics: Dict[str, float]):
        if value is None or not value >= 0:
            logger.warning(
                "The best checkpoint is chosen by %s, which is %s here; this evaluation does not count. Values: %s.",
                self._metric, "missing" if value is None else value, ", ".join(sorted(metrics)) or "none",
            )
            return
        now = {"iteration": self.trainer.iter, "value": value}
        self.evaluations.append(now)
        if self.best is None or value > self.best["value"]:
            self._checkpointer.save("model_best", iteration=self.trainer.iter)
            logger.info("%s is %.4f, the best so far (before: %s): saved model_best.pth.", self._metric, value,
                        "none" if self.best is None else f"{self.best['value']:.4f}")
            self.best = now
        with atomic_write(self._path, "w") as file:
            json.dump({"metric": self._metric, **self.best, "evaluations": self.evaluations}, file)

    def _end_without_progress(self, iteration: int):
        """End training if the evaluation after ``iteration`` used up the patience; all processes call it."""
        if self._patience and comm.all_gather(self._without_progress(iteration) >= self._patience)[0]:
            self.trainer.finish(f"{self._metric} has not improved in {self._patience} evaluations")

    def _without_progress(self, iteration: int) -> int:
        if not self.evaluations or self.evaluations[-1]["iteration"] != iteration:
            return 0
        return sum(evaluation["iteration"] > self.best["iteration"] for evaluation in self.evaluations)

    def _read(self):
        try:
            saved = read_json(self._path)
            metric, evaluations = saved["metric"], [_evaluation(each, "value") for each in saved["evaluations"]]
        except (DataError, ValueError, KeyError, TypeError, OverflowError):
            metric, evaluations = self._metric, self._evaluations_in_metrics()
            if evaluations or os.path.lexists(self._path):
                logger.warning("There is no readable %s: the best value so far is taken from metrics.json.", self._path)
        if metric != self._metric:
            logger.warning("%s is about %s; the best by %s is chosen anew.", self._path, metric, self._metric)
            return
        done = self.trainer.start_iter
        self.evaluations = [evaluation for evaluation in evaluations if evaluation["iteration"] < done]
        # A best value from beyond this point is reached again, with the same weights.
        self.best = max(self.evaluations, key=lambda evaluation: evaluation["value"], default=None)

    def _evaluations_in_metrics(self) -> List[Dict[str, float]]:
        found = []
        for line in read_metrics(os.path.join(os.path.dirname(self._path), "metrics.json")):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found.append(_evaluation(line, self._metric))
        return found


def _evaluation(record, key: str) -> Dict[str, float]:
    evaluation = {"iteration": int(record["iteration"]), "value": float(record[key])}
    if not evaluation["value"] >= 0:
        raise ValueError(f"an evaluation of {evaluation['value']} does not count")
    return evaluation
