"""The training loop: one class for yacs and LazyConfig runs, one process or several, full and mixed precision."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from typing import Dict, Iterator, List, Optional, Set, Tuple

import torch
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..utils.errors import CheckpointError
from .nonfinite import nan_is_nonfinite, require_finite
from .precision import FullPrecision
from .step_losses import fetch_losses, split_batch
from .training_state import (
    describe_process,
    gather_plain_attributes,
    load_optimizer,
    load_plain_attributes,
    load_recent_scalars,
    recent_scalars,
    warn_if_other_process,
)

__all__ = ["BalancedTrainer"]

logger = logging.getLogger(__name__)


class BalancedTrainer(TrainerBase):
    """Trains ``model`` on ``data_loader``; everything else (learning rate, checkpoints, evaluation, logs) is a hook.

    A hook may define, beside detectron2's methods, ``after_backward()`` (called once per optimizer step, when all
    gradients are there and unscaled, before clipping and step), ``state_dict()`` / ``load_state_dict(state)``, and ``collect_state()``, which all processes
    call before the main one takes ``state_dict()``.
    With a hook that seeds every step and a loader that can start anywhere, a resumed run is bit-identical on the CPU
    to one that was never stopped.

    Args:
        model: takes a list of dicts, returns a dict of 0-d losses; may be wrapped in ``DistributedDataParallel``.
        data_loader: has ``iter_from(batch_index)``, which yields this process's images of each optimizer step. A plain
            iterable also works, but starts over at a resume.
        optimizer: steps the parameters. detectron2's gradient clipping is part of it.
        scheduler: a torch scheduler, stepped by a hook and saved here; None for a constant learning rate.
        accumulate: forward passes that one step's images are split into, 1 or more.
        precision: full precision by default; see ``precision.py``.
    """

    def __init__(self, model: nn.Module, data_loader, optimizer, scheduler=None, *, accumulate=1, precision=None):
        super().__init__()
        if accumulate < 1:
            raise ValueError(f"BalancedTrainer: accumulate must be 1 or more, got {accumulate}.")
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.accumulate = accumulate
        self.precision = precision or FullPrecision()
        self.storage: Optional[EventStorage] = None
        self.batch: List[dict] = []
        self.last_finished_iter = -1
        self.evaluation: Tuple[int, Dict[str, float]] = (-1, {})
        self.evaluated: Set[str] = set()  # names of metrics; in no checkpoint, which may precede the evaluation or not
        self.stop_reason = ""
        self.interrupted = False
        self.completed = False
        self._data: Iterator[List[dict]] = iter(())
        self._stop_wanted = ""
        self._saved_scalars: Dict[str, list] = {}
        self._plain_attributes: Dict[str, list] = {}
        self.resume_changes: List[str] = []  # what is not as in the run that is resumed, in words
        self.resumed_from = ""  # name of the checkpoint, without its ending
        self.ended_early = ""  # why the run that is resumed ended before its last iteration; empty if it did not
        model.train()

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter .. max_iter - 1``, or fewer if a hook asks for a stop.

        ``after_train`` of the hooks runs in any case; ``completed`` then tells whether training ended without an error.
        """
        if start_iter >= max_iter:
            raise ValueError(f"Nothing to train: {start_iter} iterations are done, and the last is number {max_iter}.")
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self.completed = False
        with EventStorage(start_iter) as self.storage:
            load_recent_scalars(self.storage, self._saved_scalars)
            try:
                self.before_train()
                self._data = self._read_from(start_iter)  # after StopOnSignal, whose handler the data workers inherit
                while self.iter < max_iter and not self.stop_reason:
                    self.before_step()
                    self.run_step()
                    self.last_finished_iter = self.iter
                    self.after_step()
                    self.iter += 1
                self.completed = True
            finally:
                self.after_train()

    def finish_up(self, max_iter: int) -> None:
        """Repeat what follows the last step of a run that is resumed: final checkpoint, evaluation, best one, logs.

        Only the hooks with ``repeats_last_step`` take part. ``train`` may go on from there.
        """
        self.iter = self.start_iter = self.last_finished_iter
        self.max_iter = max_iter
        hooks = [hook for hook in self._hooks if getattr(hook, "repeats_last_step", False)]
        with EventStorage(self.iter) as self.storage:
            load_recent_scalars(self.storage, self._saved_scalars)
            try:
                for hook in hooks:
                    hook.before_train()
                for hook in hooks:
                    hook.after_step()
                self.completed = True
            finally:
                for hook in hooks:
                    hook.after_train()

    def run_step(self) -> None:
        """One optimizer step: data, forward and backward per micro-batch, check, hooks on the gradients, step."""
        start = time.perf_counter()
        self.batch = next(self._data)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        losses: Dict[str, torch.Tensor] = {}
        for part, images in enumerate(split_batch(self.batch, self.accumulate)):
            with self._gradient_exchange(part == self.accumulate - 1):
                with self.precision.autocast():
                    loss_dict = self._loss_dict(images)
                self.precision.backward(sum(loss_dict.values()) / self.accumulate)
            for name, loss in loss_dict.items():
                losses[name] = losses.get(name, 0) + loss.detach() / self.accumulate

        self.precision.unscale(self.optimizer)
        self._log(losses, data_time)  # raises before a loss that is not finite reaches the weights
        self.after_backward()
        self.precision.step(self.optimizer)

    def after_backward(self) -> None:
        """Let the hooks see, or change, the gradients of the whole step."""
        for hook in self._hooks:
            if hasattr(hook, "after_backward"):
                hook.after_backward()

    def request_stop(self, reason: str) -> None:
        """Interrupt training after the step in which all processes know of it, this one or the next. Any may ask."""
        self._stop_wanted = reason

    @property
    def stop_wanted(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self._stop_wanted)

    def interrupt(self) -> None:
        """End training after this step, to be resumed. All processes call it at the same step."""
        self.stop_reason = self._stop_wanted or "another process asked for it"
        self.interrupted = True

    def finish(self, reason: str) -> None:
        """End training after this step, as if it were the last one. All processes call it at the same step."""
        self.stop_reason = reason

    def _read_from(self, start_iter: int) -> Iterator[List[dict]]:
        if hasattr(self.data_loader, "iter_from"):
            return iter(self.data_loader.iter_from(start_iter))
        if start_iter:
            logger.warning("%s cannot start at a given batch: the data start over.", type(self.data_loader).__name__)
        return iter(self.data_loader)

    def _loss_dict(self, images: List[dict]) -> Dict[str, torch.Tensor]:
        with nan_is_nonfinite(self):
            losses = self.model(images)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def _gradient_exchange(self, now: bool):
        """Processes exchange gradients in the last backward of a step only."""
        if isinstance(self.model, DistributedDataParallel) and not now:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _log(self, losses: Dict[str, torch.Tensor], data_time: float) -> None:
        means, stop = fetch_losses(losses, self.stop_wanted)
        require_finite(means, self)
        if stop and self.iter + 1 < self.max_iter:  # the last step needs no stop
            self.interrupt()
        self.storage.put_scalar("data_time", data_time)
        self.storage.put_scalar("total_loss", sum(means.values()))
        if len(means) > 1:
            self.storage.put_scalars(**means)

    def collect_state(self) -> None:
        """Gather what differs between processes. All of them call it, before the main one takes ``state_dict()``."""
        self._plain_attributes = gather_plain_attributes(_unwrap(self.model))
        for hook in self._hooks:
            if hasattr(hook, "collect_state"):
                hook.collect_state()

    def state_dict(self) -> dict:
        """Everything but the weights; ``iteration`` is the last finished one, and tells the data's position, too."""
        return {
            "iteration": self.last_finished_iter,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {} if self.scheduler is None else self.scheduler.state_dict(),
            "precision": self.precision.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in self._named_hooks() if hook.state_dict()},
            "plain_attributes": self._plain_attributes,
            "recent_scalars": recent_scalars(self.storage, self.evaluated),
            "process": describe_process(),
            "ended_early": "" if self.interrupted else self.stop_reason,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict()``; the hooks must be registered already.

        Learning rate, momentum, weight decay and schedule are those that the optimizer and scheduler were built with.
        """
        needed = "iteration optimizer scheduler precision hooks plain_attributes recent_scalars process".split()
        missing = [key for key in needed if key not in state]
        if missing:
            raise CheckpointError(
                f"This checkpoint cannot be resumed: it has no {', '.join(missing)} (another trainer wrote it). Give "
                "it as the initial weights (MODEL.WEIGHTS or train.init_checkpoint), without --resume."
            )
        warn_if_other_process(state["process"])
        self.last_finished_iter = self.iter = state["iteration"]
        load_optimizer(self.optimizer, self.scheduler, state["optimizer"], state["scheduler"])
        self.precision.load_state_dict(state["precision"])
        load_plain_attributes(_unwrap(self.model), state["plain_attributes"])
        self._saved_scalars = state["recent_scalars"]
        self.ended_early = state.get("ended_early", "")
        hooks = dict(self._named_hooks())
        for name, hook_state in state["hooks"].items():
            if name in hooks and hasattr(hooks[name], "load_state_dict"):
                hooks[name].load_state_dict(hook_state)
            else:
                logger.warning("The checkpoint has the state of a hook %s, which this run lacks; it is left out.", name)

    def _named_hooks(self):
        """``(name, hook)``; the second of one class is ``Name#2``, so that each keeps its own state."""
        seen: Counter = Counter()
        for hook in self._hooks:
            name = type(hook).__qualname__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), hook


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model
