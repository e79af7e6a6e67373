"""What the forward passes of one iteration measure, summed over them and over all processes: state of adaptive losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..utils.reductions import reduce_sum
from .awaited_hook import warn_without_end_iteration

__all__ = ["IterationSums"]


class IterationSums(nn.Module):
    """A vector of sums that is empty when an iteration begins, so that a checkpoint needs nothing of it.

    Args:
        owner: class name of the component, for the warning that nobody ends its iterations.
        size: length of the vector. Sums are float64: counts are exact, and a long training does not round small terms off.
    """

    def __init__(self, owner: str, size: int):
        super().__init__()
        self._awaited_hook = warn_without_end_iteration(owner)
        self.register_buffer("pending", torch.zeros(size, dtype=torch.float64), persistent=False)

    def add(self, values: Tensor) -> None:
        """Add what a forward pass measured, (size,)."""
        self._awaited_hook.check()
        self.pending.add_(values.detach())

    def take(self) -> Tensor:
        """The sums (size,), the same on all processes; starts anew. A collective call without a host-device sync."""
        total = reduce_sum(self.pending)
        self.pending.zero_()
        return total
