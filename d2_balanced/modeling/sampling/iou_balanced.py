"""IoU-balanced sampling of negatives (Libra R-CNN sec. 3.1, eq. 1-2)."""

from __future__ import annotations

import torch
from torch import Tensor

from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY

from ...utils.numbers import require
from .base import ProposalSampler
from .draw import draw_at_random, draw_preferred

__all__ = ["IoUBalancedSampler"]

_UPPER_ENDS = ("negatives", "max_overlap")
_MOST_BINS = 10_000  # the bins are rows of a matrix with a column for every negative
_SMALLEST_SPAN = 1e-12  # where no negative overlaps anything, all are in the first bin


@PROPOSAL_SAMPLER_REGISTRY.register()
class IoUBalancedSampler(ProposalSampler):
    """Negatives spread evenly over IoU (Libra R-CNN sec. 3.1, eq. 2): hard negatives are drawn more often.

    The negatives' IoU range is split into ``num_bins`` bins of equal width and each bin gives
    ``int(num / num_bins)`` negatives, drawn without replacement, or all it has; what is then missing is drawn
    uniformly from the negatives not yet taken. If no more negatives exist than are wanted, all are taken.
    With ``num_bins=1`` and no floor it equals ``subsample_labels`` to the bit.

    Args:
        num_bins: number of bins, 1 to 10000 (the paper: 3).
        floor_thr: negatives below this IoU (for 0: of IoU exactly 0) are left out of the bins and drawn as a set of
            their own, the "floor"; -1: no floor.
        floor_fraction: share of the negatives that the floor is meant to give, in [0, 1].
        upper: upper end of the binned range: the highest IoU of the ``negatives`` (the paper's rule), or
            ``max_overlap``, the highest IoU of all proposals of the image, positives and appended ground truth
            included, the last bin being open (the authors' released code: upper bins then mostly stay empty).
        positives, neg_pos_ub: see :class:`ProposalSampler`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        num_bins: int = 3,
        floor_thr: float = -1.0,
        floor_fraction: float = 0.0,
        upper: str = "negatives",
        positives: str = "random",
        neg_pos_ub: float = -1.0,
    ):
        super().__init__(positives=positives, neg_pos_ub=neg_pos_ub)
        self._check("upper", upper, f"one of {list(_UPPER_ENDS)}", upper in _UPPER_ENDS)
        self.num_bins = require(self, "num_bins", num_bins, at_least=1, at_most=_MOST_BINS, integer=True)
        self.floor_thr = require(self, "floor_thr", floor_thr, at_least=0, below=1, also=(-1,))
        self.floor_fraction = require(self, "floor_fraction", floor_fraction, at_least=0, at_most=1)
        self.upper = upper

    def draw_negatives(self, negative: Tensor, ious: Tensor, num: int) -> Tensor:
        """Exactly ``num`` <= Q of the indices ``negative`` (Q,), balanced over their ``ious`` (N,)."""
        if negative.numel() <= num or (self.num_bins == 1 and self.floor_thr == -1):
            return draw_at_random(negative, num)
        # In random order, so that "the first" of a bin are a random choice.
        negative = negative.index_select(0, torch.randperm(negative.numel(), device=negative.device))
        neg_ious = ious.index_select(0, negative)
        num_balanced = int(num * (1 - self.floor_fraction))
        bins = self._bins(neg_ious, (neg_ious if self.upper == "negatives" else ious).max())
        if self.floor_thr == -1:
            return draw_preferred(negative, self._first_of_each_bin(bins, num_balanced), num)
        floor = neg_ious < self.floor_thr if self.floor_thr > 0 else neg_ious == 0
        taken = self._first_of_each_bin(bins.masked_fill(floor, self.num_bins), num_balanced)
        return draw_preferred(negative, self._preference_with_floor(floor, taken, num, num_balanced), num)

    def _bins(self, neg_ious: Tensor, upper: Tensor) -> Tensor:
        """Bin of every negative (Q,); ``num_bins`` for those at or above the end of an open last bin."""
        above, span = neg_ious, upper
        if self.floor_thr > 0:
            above, span = neg_ious - self.floor_thr, upper - self.floor_thr
        # Multiplied first: an IoU on an edge that float32 can express then lands exactly on it.
        in_widths = (above * self.num_bins).div_(span.clamp(min=_SMALLEST_SPAN))
        bins = in_widths.long().clamp_(max=self.num_bins - 1)  # the last bin is closed
        if self.upper == "max_overlap":  # as released: open, and with the rounding of that code's last edge
            end = max(self.floor_thr, 0.0) + span / self.num_bins * self.num_bins
            bins.masked_fill_(neg_ious >= end, self.num_bins)
        return bins

    def _first_of_each_bin(self, bins: Tensor, num_balanced: int) -> Tensor:
        """Mask (Q,) of the first ``num_balanced / num_bins`` negatives of each bin."""
        all_binned = self.upper == "negatives" and self.floor_thr == -1
        num_groups = self.num_bins if all_binned else self.num_bins + 1  # the last one: outside the bins
        in_group = bins == torch.arange(num_groups, device=bins.device)[:, None]  # (num_groups, Q)
        place_in_group = in_group.cumsum(1).gather(0, bins[None])[0]
        first = place_in_group <= num_balanced // self.num_bins
        return first if all_binned else first & (bins < self.num_bins)

    @staticmethod
    def _preference_with_floor(floor: Tensor, taken: Tensor, num: int, num_balanced: int) -> Tensor:
        """2 for what the bins and the floor give, 1 for the negatives that fill up, 0 for the rest of the floor.

        The floor gives what the others leave free, and the others give what the floor lacks.
        """
        from_others = (floor.numel() - floor.sum()).clamp(max=num_balanced)
        taken = taken | (floor & (floor.cumsum(0) <= num - from_others))
        return torch.where(taken, 2, torch.where(floor, 0, 1))
