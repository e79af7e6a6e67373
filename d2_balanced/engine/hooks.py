"""What happens around a training step. The order of a run's hooks, and why, is in ``assemble.py``."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import Callable, Dict, Optional

import torch
from detectron2.engine import HookBase
from detectron2.engine import hooks as d2_hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..modeling.awaited_hook import hook_at_work
from .stopping import EvaluationStopped, StopRequests

__all__ = ["Checkpoints", "EndIteration", "Evaluate", "LearningRate", "StopOnSignal"]

logger = logging.getLogger(__name__)


class EndIteration(HookBase):
    """After every optimizer step: lets modules that adapt during training do so, and logs the values they return.

    A module takes part by having ``end_iteration(iteration: int) -> Dict[str, 0-d tensor or float]``. Its values are
    named ``<component>/<value>``; where several modules have one of the same name, ``<path of the module>/<value>``.

    Args:
        model: its submodules are searched once, when training starts; ``None``: the trainer's.
        log_period: iterations between two readings of the values; tensors on a GPU are waited for only then.
    """

    def __init__(self, model: Optional[torch.nn.Module] = None, log_period: int = 20):
        self._model = model
        self._log_period = log_period
        self._adaptive: Dict[str, torch.nn.Module] = {}

    def before_train(self):
        if self._model is None:
            self._model = getattr(self.trainer.model, "module", self.trainer.model)  # without DistributedDataParallel
        modules = self._model.named_modules()
        self._adaptive = {path: module for path, module in modules if hasattr(module, "end_iteration")}
        hook_at_work(self._model, "EndIteration")
        before = self.trainer._hooks[: self.trainer._hooks.index(self)]
        if self._adaptive and any(isinstance(hook, d2_hooks.PeriodicCheckpointer) for hook in before):
            logger.warning(
                "EndIteration comes after PeriodicCheckpointer: a checkpoint lacks what its iteration measured. Put "
                "balanced_hooks(cfg) before the trainer's own hooks (docs/LIBRARY.md)."
            )

    def after_train(self):
        if self._model is not None:
            hook_at_work(self._model, "EndIteration", False)

    def after_step(self):
        values = {path: module.end_iteration(self.trainer.iter) or {} for path, module in self._adaptive.items()}
        done = self.trainer.iter + 1
        if done % self._log_period == 0 or done == self.trainer.max_iter:
            scalars = {name: float(value) for name, value in _told_apart(values).items()}
            self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)


def _told_apart(values: Dict[str, Dict[str, object]]) -> Dict[str, object]:
    """``{name: value}`` of ``{module: {name: value}}``; names that several modules have get their module's path."""
    times = Counter(name for of_module in values.values() for name in of_module)
    return {
        name if times[name] == 1 else f"{path}/{name.rsplit('/', 1)[-1]}": value
        for path, of_module in values.items()
        for name, value in of_module.items()
    }


class LearningRate(d2_hooks.LRScheduler):
    """detectron2's hook that logs and steps the learning rate; the scheduler's state is saved by the trainer.

    (detectron2 0.6's own ``state_dict`` leaves out torch's schedulers.)
    """

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class Checkpoints(HookBase):
    """Saves ``model_<iteration>.pth`` periodically and at an interruption, ``model_final.pth`` at the end.

    Every process runs it (some state is gathered), the main one writes. Weights that are not finite are never written.

    Args:
        checkpointer: saves the model and the trainer; ``save(name, iteration=...)`` tags what it wrote as the last one.
        period: iterations between two checkpoints, 1 or more.
    """

    repeats_last_step = True

    def __init__(self, checkpointer, period: int):
        if period < 1:
            raise ValueError(f"Checkpoints: period must be 1 or more iterations, got {period}.")
        self._checkpointer = checkpointer
        self._period = period
        self._saved = (-1, "")

    def before_train(self):
        self._saved = (self.trainer.last_finished_iter, self.trainer.resumed_from)

    def after_step(self):
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self._save("model_final")
        elif done % self._period == 0:
            self._save(f"model_{self.trainer.iter:07d}")

    def after_train(self):
        """Save what a requested stop ended; after an error there is nothing here that is better than what is saved."""
        if not self.trainer.completed:
            return
        iteration = self.trainer.last_finished_iter
        if not self.trainer.interrupted and self.trainer.stop_reason:
            self._save("model_final")  # of a run that ended early, also where a periodic checkpoint has the same
        elif self._saved[0] != iteration:
            self._save(f"model_{iteration:07d}")

    def _save(self, name: str):
        iteration = self.trainer.last_finished_iter
        if self._saved == (iteration, name):
            return
        for parameter_name, parameter in self._checkpointer.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(
                    f"{parameter_name} is not finite after iteration {iteration}, although the loss was: {name}.pth "
                    "was not written. The last good checkpoint stays; lower the learning rate or clip gradients, then "
                    "--resume."
                )
        self.trainer.collect_state()
        self._checkpointer.save(name, iteration=iteration)
        self._saved = (iteration, name)


class Evaluate(HookBase):
    """Evaluates every ``period`` iterations and after the last one; leaves no trace on training.

    Unlike detectron2's it does not run after a failure in the last iteration, and its values are logged at the
    iteration they belong to. They are left in ``trainer.evaluation`` for the hooks that follow.

    Args:
        period: iterations between two evaluations; 0: only after the last one.
        evaluate: returns nested dicts of numbers on the main process, ``{}`` on the others; all processes call it. If
            it raises ``EvaluationStopped`` in all of them, training ends as interrupted.
    """

    repeats_last_step = True

    def __init__(self, period: int, evaluate: Callable[[], dict]):
        if period < 0:
            raise ValueError(f"Evaluate: period must be 0 (only at the end) or more iterations, got {period}.")
        self._period = period
        self._evaluate = evaluate

    def after_step(self):
        done = self.trainer.iter + 1
        if done != self.trainer.max_iter and (self._period == 0 or done % self._period):
            return
        start = time.perf_counter()
        try:
            metrics = flatten_results_dict(self._evaluate() or {})
        except EvaluationStopped as stopped:
            logger.warning("After %d iterations %s.", done, stopped)
            self.trainer.interrupt()
            return
        # The evaluator has said why a value is not finite.
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(float(value))}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)
        self.trainer.evaluation = (self.trainer.iter, finite)
        self.trainer.evaluated.update(finite)
        comm.synchronize()  # all processes start the next iteration together
        logger.info("Evaluation after %d iterations took %.1f s.", done, time.perf_counter() - start)


class StopOnSignal(HookBase):
    """A signal (Ctrl-C, a scheduler's): finish the step or stop the evaluation, save a checkpoint, end.

    A second signal ends at once. See :mod:`.stopping`.
    """

    repeats_last_step = True

    def before_train(self):
        self._requests = StopRequests(self.trainer.request_stop, "stopping, with a checkpoint")
        self._requests.install()

    def after_train(self):
        self._requests.restore()
