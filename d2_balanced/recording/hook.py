"""The hook that records what a detector trains on (``recorder.py``) in ``imbalance.jsonl`` of the run's folder."""

from __future__ import annotations

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..utils.errors import ConfigError
from ..utils.reductions import reduce_sum
from .file import append_line, counts_line, drop_from
from .gradient_norms import GradientNorms
from .recorder import ImbalanceRecorder

__all__ = ["RecordImbalance", "find_recorded_heads"]


def find_recorded_heads(model):
    """The ROI heads of ``model`` that take observers. ``ConfigError`` without any."""
    heads = [module for module in model.modules() if isinstance(getattr(module, "observers", None), list)]
    if not heads and not hasattr(model, "roi_heads"):
        raise ConfigError(f"{type(model).__name__} is no two-stage detector: it has no ROI heads that could be recorded")
    if not heads:
        raise ConfigError(
            f"{type(model.roi_heads).__name__} cannot be recorded: it needs MODEL.ROI_HEADS.NAME BalancedROIHeads, "
            "which with these settings trains as detectron2's heads do"
        )
    return heads[0]


class RecordImbalance(HookBase):
    """Records windows of ``period`` iterations, and gradient norms every ``gradient_period`` iterations.

    Training is bit-identical with and without it. A resumed run continues the window that was begun, so its file is
    that of a run that was never stopped. With several processes a window has the images of all.

    Args:
        model: the detector, not wrapped.
        output_dir: folder of ``imbalance.jsonl``.
        period: iterations a window, 1 or more.
        gradient_period: iterations between two measurements of gradient norms (``gradient_norms.py``); 0: none.
        gradient_parameter: name of the parameter whose gradients are measured.

    Raises ``ValueError`` for periods out of range, a model without ROI heads to record, or without that parameter.
    """

    repeats_last_step = True  # a run that is killed in its last evaluation has its last window in the checkpoint only

    def __init__(self, model, output_dir, *, period, gradient_period, gradient_parameter):
        if period < 1:
            raise ValueError(f"RecordImbalance: period must be 1 or more iterations, got {period}")
        if gradient_period < 0:
            raise ValueError(f"RecordImbalance: gradient_period must be 0 (off) or more, got {gradient_period}")
        self._output_dir = output_dir
        self._period = period
        self._gradient_period = gradient_period
        self._recorder = ImbalanceRecorder(find_recorded_heads(model))
        self._gradients = GradientNorms(model, gradient_parameter) if gradient_period else None
        self._first = 0
        self._state = {}
        self._began = False

    def before_train(self):
        start = self.trainer.last_finished_iter + 1
        self._first = self._state.get("first", start)
        self._began = True
        self._recorder.counts.clear()
        if comm.is_main_process():
            drop_from(self._output_dir, self._first, start)
            self._take_up()
        self._recorder.heads.observers.append(self._recorder)
        if self._gradients is not None:
            self._gradients.attach()

    def before_step(self):
        if self._gradients is not None and self.trainer.iter % self._gradient_period == 0:
            self._gradients.wanted = True

    def after_step(self):
        if self._gradients is not None and self._gradients.found:
            self._write({"iteration": self.trainer.iter, "gradients": self._gradients.take()})
        if (self.trainer.iter + 1) % self._period == 0 and self._first <= self.trainer.iter:
            self._write(counts_line(self._first, self.trainer.iter, self._of_all_processes()))
            self._recorder.reset()
            self._first, self._state = self.trainer.iter + 1, {}

    def after_train(self):
        """Write the last window, full or not; a run that goes on from here takes its counts from the checkpoint."""
        if self._recorder in self._recorder.heads.observers:
            self._recorder.heads.observers.remove(self._recorder)
        if self._gradients is not None:
            self._gradients.remove()
        if self.trainer.completed and self._first <= self.trainer.last_finished_iter:
            self._write(counts_line(self._first, self.trainer.last_finished_iter, self._of_all_processes()))

    def collect_state(self):
        """Add up all processes' counts of the window that was begun, for ``state_dict()``; all of them call it.

        Before training begins the state is what was loaded.
        """
        if not self._began:
            return
        counts = {f"{k}/{p}": counts.values.cpu().clone() for (k, p), counts in self._of_all_processes().items()}
        self._state = {"first": self._first, "counts": counts}

    def state_dict(self):
        return self._state

    def load_state_dict(self, state_dict):
        self._state = state_dict

    def _take_up(self):
        """Continue with the counts of the checkpoint; only one process does, as they are those of all."""
        empty = self._recorder.new_counts(next(self._recorder.heads.parameters()).device)
        for key, values in self._state.get("counts", {}).items():
            self._recorder.counts[tuple(int(part) for part in key.split("/"))] = empty.with_values(values)

    def _of_all_processes(self):
        if comm.get_world_size() == 1:
            return self._recorder.counts
        summed = {}
        for key in sorted(self._recorder.counts):
            counts = self._recorder.counts[key]
            summed[key] = counts.with_values(reduce_sum(counts.values))
        return summed

    def _write(self, line):
        if comm.is_main_process():
            append_line(self._output_dir, line)
