"""Gradient density (Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019): how many examples have a
gradient norm like that of a given one.

    N: examples of a forward pass      M: unit regions, the bins of [0, 1]      g: gradient norms in [0, 1]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..utils.numbers import require
from .arguments import check_range
from .iteration_sums import IterationSums

__all__ = ["GradientDensity"]

DIVISORS = ("bins", "non_empty")
_MOST_BINS = 100_000


class GradientDensity(nn.Module):
    """Weights ``beta_i = N / GD(g_i)`` of examples, where ``GD(g) = M R(g)`` and R(g) is the number of examples in g's
    bin: every bin counts as much as every other, and evenly spread examples have weight 1.

    R is a moving average, ``momentum`` times that of the iterations before plus ``1 - momentum`` times that of this
    pass; N is its sum over the bins. The average is state, the same on all processes; passes of one iteration and
    processes enter it with their mean.

    Args:
        owner: class name of the loss, for error messages.
        bins: M, 1 to 100000; 1: all weights are 1.
        momentum: in [0, 1); 0: the examples of this pass alone.
        divide_by: "bins" (the paper) or "non_empty", the number of bins that have examples, as in the authors' code.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, owner: str, bins: int, momentum: float, divide_by: str):
        super().__init__()
        require(owner, "bins", bins, at_least=1, at_most=_MOST_BINS, integer=True)
        require(owner, "momentum", momentum, at_least=0, below=1)
        check_range(owner, "divide_by", divide_by, f"one of {list(DIVISORS)}", divide_by in DIVISORS)
        self.bins = bins
        self.momentum = momentum
        self.divide_by = divide_by
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.float64))
        self.sums = IterationSums(owner, bins + 1)  # the last one counts the passes

    def forward(self, norms: Tensor) -> Tensor:
        """The weights of examples with these gradient norms, of the same shape; empty for none."""
        index = self._index(norms)
        here = self._histogram(index)
        counts = self.momentum * self.counts + (1 - self.momentum) * here
        regions = self.bins if self.divide_by == "bins" else (here > 0).sum()
        weights = counts.sum() / (counts * regions)
        return weights.to(norms.dtype)[index]

    def accumulate(self, norms: Tensor) -> None:
        """Count the examples of a training pass."""
        counts = self._histogram(self._index(norms))
        self.sums.add(torch.cat([counts, counts.new_ones(1)]))

    def end_iteration(self, iteration: int) -> None:
        """Let the moving average take up what the iteration counted, on all processes; a collective call."""
        total = self.sums.take()
        new = self.momentum * self.counts + (1 - self.momentum) * total[:-1] / total[-1].clamp(min=1)
        self.counts.copy_(torch.where(total[-1] > 0, new, self.counts))

    def _index(self, norms: Tensor) -> Tensor:
        return (norms.detach() * self.bins).long().clamp(0, self.bins - 1)

    def _histogram(self, index: Tensor) -> Tensor:
        """(M,) float64; bincount would wait for the device."""
        index = index.flatten()
        return self.counts.new_zeros(self.bins).index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def extra_repr(self):
        return f"bins={self.bins}, momentum={self.momentum}, divide_by={self.divide_by!r}"
