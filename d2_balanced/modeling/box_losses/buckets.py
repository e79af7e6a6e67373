"""The loss of buckets: which one a side of a box is in, and how far from its middle."""

from __future__ import annotations

import torch
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...utils.numbers import require
from ..box_coders.buckets import middles, parts
from ..registry import BOX_LOSS_REGISTRY

__all__ = ["BucketLoss"]


@BOX_LOSS_REGISTRY.register()
class BucketLoss(nn.Module):
    """The two losses of SABL (Wang et al., ECCV 2020), for the box coder :class:`~..box_coders.Buckets`.

    The bucket whose middle is nearest to the side is the positive of a binary cross entropy, the others are negatives;
    the sum over a side's buckets counts a quarter, so that the sum over the four sides is their mean. Its offset, and
    that of a neighbour whose middle is also near, has a SmoothL1 loss.

    Args:
        beta: of the SmoothL1 loss, in buckets, at least 0.
        max_offset: a bucket that is not the nearest trains its offset where that is below; at least 0. At 1 this is the
            two nearest buckets of the release (``offset_topk`` 2, ``offset_upperbound`` 1), at 0 the nearest alone.
        ignore_neighbors: a bucket that is not the nearest, but less than one bucket away, is no negative.
        bucket_weight, offset_weight: factors of the two, at least 0.

    Raises:
        ValueError: for a value out of range.
    """

    #: what the loss is called with, see ``seat.py``
    sees = "buckets"

    def __init__(
        self,
        beta: float = 0.1,
        max_offset: float = 1.0,
        ignore_neighbors: bool = True,
        bucket_weight: float = 1.0,
        offset_weight: float = 1.0,
    ):
        super().__init__()
        self.beta = require(self, "beta", beta, at_least=0)
        self.max_offset = require(self, "max_offset", max_offset, at_least=0)
        self.ignore_neighbors = ignore_neighbors
        self.bucket_weight = require(self, "bucket_weight", bucket_weight, at_least=0)
        self.offset_weight = require(self, "offset_weight", offset_weight, at_least=0)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Losses (F, 4) of the sides, from values (F, 8 S) and where the sides are (F, 4), in buckets; empty input
        gives an empty, graph-connected result."""
        logits, offsets = parts(pred.to(torch.promote_types(pred.dtype, torch.float32)))
        wanted = middles(logits.shape[-1], target) - target[..., None]  # (F, 4, S)
        distance = wanted.abs()
        nearest = torch.zeros_like(distance).scatter(-1, distance.argmin(dim=-1, keepdim=True), 1.0)
        of_buckets = binary_cross_entropy_with_logits(logits, nearest.to(logits.dtype), reduction="none")
        if self.ignore_neighbors:
            of_buckets = of_buckets * ((nearest == 1) | (distance >= 1))
        of_offsets = smooth_l1_loss(offsets, wanted, self.beta) * ((nearest == 1) | (distance < self.max_offset))
        return self.bucket_weight / 4 * of_buckets.sum(dim=-1) + self.offset_weight * of_offsets.sum(dim=-1)

    def extra_repr(self):
        own = ("beta", "max_offset", "ignore_neighbors", "bucket_weight", "offset_weight")
        return ", ".join(f"{name}={getattr(self, name)}" for name in own)
