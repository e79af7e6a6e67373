"""IoU-balanced sampling of negatives (Libra R-CNN sec. 3.1, eq. 1-2)."""

from __future__ import annotations

from typing import Optional, Tuple

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
        bins, beyond = self._bins(ious.index_select(0, negative), ious)
        first, rest_of_floor = self._first_of_each_bin(bins, num)
        if beyond is not None:
            first = first > beyond  # and not
        return draw_preferred(negative, num, first, rest_of_floor)

    def _bins(self, neg_ious: Tensor, ious: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Bin (Q,) of every negative, -1 for the floor; and the mask (Q,) of those beyond an open last bin, which are in
        none.

        Args:
            neg_ious: (Q,), changed in place.
        """
        beyond = None
        if self.upper == "max_overlap":  # as released: open, and with the rounding of that code's last edge
            span = ious.max()
            if self.floor_thr > 0:
                span.sub_(self.floor_thr)
            end = span.div(self.num_bins).mul_(self.num_bins)
            beyond = neg_ious >= (end.add_(self.floor_thr) if self.floor_thr > 0 else end)
        if self.floor_thr > 0:
            neg_ious.sub_(self.floor_thr)
        elif self.floor_thr == 0:
            neg_ious.masked_fill_(neg_ious == 0, -1.0)
        if self.upper == "negatives":
            span = neg_ious.max()
        # Multiplied first: an IoU on an edge that float32 can express then lands exactly on it.
        in_widths = neg_ious.mul_(self.num_bins).div_(span.clamp_(min=_SMALLEST_SPAN))
        if self.floor_thr != -1:
            in_widths.floor_()
        bins = in_widths.clamp_(-1, self.num_bins - 1).int()  # the last bin is closed
        if beyond is not None:
            if self.floor_thr != -1:
                beyond.logical_and_(bins >= 0)
            bins.masked_fill_(beyond, self.num_bins)
        return bins, beyond

    def _first_of_each_bin(self, bins: Tensor, num: int) -> Tuple[Tensor, Optional[Tensor]]:
        """Masks (Q,): the first negatives of each bin, and of the floor, as many as each gives; the rest of the floor.

        What is in no bin is among the first. There is no second mask without a floor.
        """
        has_floor = self.floor_thr != -1
        rows = torch.arange(-has_floor, self.num_bins, dtype=bins.dtype, device=bins.device).unsqueeze(1)
        in_bin = bins == rows  # (num_bins, Q); the floor has a row before those
        place = in_bin.cumsum(1, dtype=torch.int32)
        num_balanced = int(num * (1 - self.floor_fraction))
        quota = num_balanced // self.num_bins
        if has_floor:
            # The floor gives what the others leave free, and the others give what the floor lacks.
            more_than_quota = place[0, -1] + (num - quota - bins.numel())
            place[0].sub_(more_than_quota.clamp_(min=num - quota - num_balanced))
        first = place.mul_(in_bin).sum(0, dtype=torch.int32) <= quota
        return first, in_bin[0] > first if has_floor else None
