"""What a run says while it trains: metrics.json, TensorBoard, lines or a progress bar."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Callable, List

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

from ..utils.atomic import atomic_write
from ..utils.json_lines import read_metrics
from ..utils.memory import peak_resident

__all__ = [
    "MetricsFile",
    "ProgressBar",
    "TensorBoard",
    "WritePeriodically",
    "is_evaluation",
    "peak_memory_mb",
]


class MetricsFile(JSONWriter):
    """detectron2's ``metrics.json``, continued at a resume as if the run had not been stopped.

    Lines of iterations that will be done again are dropped, and so is the one that a stop between two log periods left
    (it has no evaluation). Nothing is written twice.

    Args:
        path: the file; earlier lines stay.
        start_iter: the first iteration that this process trains.
        period: iterations between two lines.
    """

    def __init__(self, path: str, start_iter: int, period: int):
        lines = [line for line in read_metrics(path) if line["iteration"] < start_iter]
        lines = [line for line in lines if not _only_marks_a_stop(line, start_iter, period)]
        with atomic_write(path, "w") as file:
            file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        super().__init__(path)
        self._last_write = start_iter - 1


def _only_marks_a_stop(line: dict, start_iter: int, period: int) -> bool:
    return line["iteration"] == start_iter - 1 and start_iter % period != 0 and not is_evaluation(line)


def is_evaluation(line: dict) -> bool:
    """Whether a line of metrics.json has the results of an evaluation."""
    return any(name.rsplit("/", 1)[-1].startswith(("AP", "AR", "MR")) for name in line)


class TensorBoard(TensorboardXWriter):
    """detectron2's TensorBoard writer; at a resume the events of iterations that are done again are hidden."""

    def __init__(self, log_dir: str, start_iter: int):
        super().__init__(log_dir, purge_step=start_iter)
        self._last_write = start_iter - 1


def peak_memory_mb() -> float:
    """Highest memory use of this process so far, in MiB: the GPU's where CUDA is in use, else resident memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident() / 2**20


class WritePeriodically(HookBase):
    """Lets every writer write each ``period`` iterations, after each evaluation and after the last step.

    Args:
        build_writers: called with ``(start_iter, max_iter)`` when training starts; returns the writers.
        period: iterations, 1 or more.
    """

    repeats_last_step = True

    def __init__(self, build_writers: Callable[[int, int], List[EventWriter]], period: int = 20):
        if period < 1:
            raise ValueError(f"WritePeriodically: period must be 1 or more iterations, got {period}.")
        self._build_writers = build_writers
        self._period = period
        self._writers: List[EventWriter] = []

    def before_train(self):
        self._writers = self._build_writers(self.trainer.start_iter, self.trainer.max_iter)

    def after_step(self):
        done = self.trainer.iter + 1
        evaluated = self.trainer.evaluation[0] == self.trainer.iter
        if done % self._period == 0 or done == self.trainer.max_iter or evaluated or self.trainer.stop_reason:
            self.trainer.storage.put_scalar("memory_mb", peak_memory_mb(), smoothing_hint=False)
            for writer in self._writers:
                writer.write()

    def after_train(self):
        for writer in self._writers:
            if self.trainer.completed and not isinstance(writer, CommonMetricPrinter):
                writer.write()  # what other hooks found after the last step
            writer.close()


class ProgressBar(HookBase):
    """A bar with loss, learning rate and time to go, in place of the periodic lines (those still go to log.txt)."""

    LINES = "detectron2.utils.events"  # the logger of detectron2's CommonMetricPrinter

    def __init__(self, stream=None):
        self._stream = sys.stderr if stream is None else stream
        self._cleanup = contextlib.ExitStack()

    @staticmethod
    def is_wanted() -> bool:
        """Whether somebody watches: the standard error is a terminal."""
        return sys.stderr.isatty()

    def before_train(self):
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        loggers = [logging.getLogger(name) for name in ("detectron2", "d2_balanced", "fvcore")]
        self._cleanup.enter_context(logging_redirect_tqdm(loggers=loggers))  # has handlers of its own
        for handler in loggers[0].handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(self._is_no_line)
                self._cleanup.callback(handler.removeFilter, self._is_no_line)
        self._bar = tqdm(initial=self.trainer.start_iter, total=self.trainer.max_iter, unit="it", file=self._stream)
        self._cleanup.callback(self._bar.close)

    def after_step(self):
        latest = self.trainer.storage.latest()
        self._bar.set_postfix_str(f"loss {latest['total_loss'][0]:.3f}, lr {latest['lr'][0]:.3g}", refresh=False)
        self._bar.update()

    def after_train(self):
        self._cleanup.close()

    def _is_no_line(self, record: logging.LogRecord) -> bool:
        return record.name != self.LINES
