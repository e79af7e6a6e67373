"""Schedules that follow the batch size (``--auto-scale-lr``) and the number of epochs (``--epochs``)."""

from __future__ import annotations

import math
from typing import List, NamedTuple, Tuple

from ..config.ranges import YACS
from ..utils.errors import ConfigError

__all__ = ["Schedule"]

LARGEST_SCALE = 128
"""Of the learning rate. The linear rule holds for factors that are not far from 1; beyond, it is no help."""


class Schedule(NamedTuple):
    """The settings that belong together when the length of training changes; all but ``lr`` in optimizer steps.

    Settings that a config system stores as fractions of ``max_iter`` (LazyConfig's warm-up and steps) are left empty.
    """

    lr: float
    max_iter: int
    steps: Tuple[int, ...]
    warmup_iters: int
    eval_period: int
    checkpoint_period: int

    def for_batch_size(self, reference: int, batch_size: int) -> Schedule:
        """The linear rule of plain SGD: k times the images a step, k times the learning rate, 1/k of the steps.

        Args:
            reference: images a step that this schedule was made for.
            batch_size: images a step that it will be used with.

        Raises ``ConfigError`` for a ratio beyond ``LARGEST_SCALE``, up or down, and as :meth:`with_max_iter`.
        """
        ratio = batch_size / reference
        if not 1 / LARGEST_SCALE <= ratio <= LARGEST_SCALE:
            raise ConfigError(
                f"--auto-scale-lr: the batch size goes from {reference} to {batch_size}, but the linear rule is not for a "
                f"learning rate times {ratio:g}; leave it out, and set learning rate and iterations yourself."
            )
        return self.with_max_iter(round(self.max_iter / ratio))._replace(lr=self.lr * ratio)

    def for_epochs(self, epochs: float, steps_per_epoch: float) -> Schedule:
        """The same shape over ``epochs`` passes through the training set; ``ConfigError`` as :meth:`with_max_iter`."""
        if not 0 < epochs < math.inf:
            raise ConfigError(f"--epochs must be a finite number, above 0, got {epochs}")
        return self.with_max_iter(math.ceil(epochs * steps_per_epoch), f"--epochs {epochs:g}: ")

    def with_max_iter(self, max_iter: int, reason: str = "") -> Schedule:
        """Stretch or shrink to ``max_iter`` steps; a period of 0 (never) stays 0, others stay at 1 or more.

        Raises ``ConfigError``, which begins with ``reason``, for a number of steps that a config could not have.
        """
        if not YACS["SOLVER.MAX_ITER"].holds(max_iter):
            allowed = YACS["SOLVER.MAX_ITER"].expected(max_iter)
            raise ConfigError(f"{reason}the number of iterations must be {allowed}, and would be {max_iter:g}.")
        factor = max_iter / self.max_iter
        periods = {name: getattr(self, name) for name in ("eval_period", "checkpoint_period")}
        return self._replace(
            max_iter=max_iter,
            steps=tuple(round(step * factor) for step in self.steps),
            warmup_iters=round(self.warmup_iters * factor),
            **{name: max(1, round(period * factor)) if period > 0 else period for name, period in periods.items()},
        )

    def describe_change(self, new: Schedule) -> str:
        """``name: old -> new`` of what changed, one a line."""
        changes = [
            f"  {name}: {before} -> {after}" for name, before, after in zip(self._fields, self, new) if before != after
        ]
        return "\n".join(changes) or "  (nothing changes)"

    def doubts(self) -> List[str]:
        """What in the schedule is probably not meant, a sentence each: warm-up or steps that training does not reach.

        The schedule is left as it is: what a config says is what is trained, as in plain detectron2.
        """
        doubts = []
        if self.warmup_iters >= self.max_iter:
            doubts.append(
                f"Warm-up (SOLVER.WARMUP_ITERS {self.warmup_iters}) is not over before training ends (SOLVER.MAX_ITER "
                f"{self.max_iter}): the learning rate never reaches SOLVER.BASE_LR {self.lr:g}. Usually only MAX_ITER "
                "was set, and WARMUP_ITERS is that of a longer training: set both, or --epochs, which scales both."
            )
        late = [step for step in self.steps if step >= self.max_iter]
        if late:
            doubts.append(
                f"SOLVER.STEPS {', '.join(map(str, late))}: training ends before (SOLVER.MAX_ITER {self.max_iter}), so "
                "the learning rate does not fall there. Set STEPS with MAX_ITER, or --epochs, which scales both."
            )
        return doubts
