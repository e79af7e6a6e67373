"""Schedules that follow the batch size (``--auto-scale-lr``) and the number of epochs (``--epochs``)."""

from __future__ import annotations

import math
from typing import NamedTuple, Tuple

from ..utils.errors import ConfigError

__all__ = ["Schedule"]


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
        """
        ratio = batch_size / reference
        return self.with_max_iter(round(self.max_iter / ratio))._replace(lr=self.lr * ratio)

    def for_epochs(self, epochs: float, steps_per_epoch: float) -> Schedule:
        """The same shape over ``epochs`` passes through the training set; ``ConfigError`` if that is no step at all."""
        max_iter = math.ceil(epochs * steps_per_epoch)
        if max_iter < 1:
            raise ConfigError(f"--epochs must be above 0, got {epochs}")
        return self.with_max_iter(max_iter)

    def with_max_iter(self, max_iter: int) -> Schedule:
        """Stretch or shrink to ``max_iter`` steps; a period of 0 (never) stays 0, others stay at 1 or more."""
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
