"""Buckets: each side of a box is in one of several stretches, and at an offset from its middle.

    N: boxes      S: buckets of a side      C: boxes predicted for each, 1 or the number of classes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Tuple

import torch
from torch import Tensor

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import BOX_CODER_REGISTRY

__all__ = ["Buckets", "middles", "parts"]

_SMALLEST = 1e-2  # pixels: a bucket of a box without extent


def middles(num: int, like: Tensor) -> Tensor:
    """(4, S): the middles of a side's buckets, in buckets from the outer end, along the axis: of the left and upper
    side 0.5, 1.5, ..., of the right and lower side -0.5, -1.5, ..."""
    steps = torch.arange(num, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack([steps, steps, -steps, -steps])


def parts(values: Tensor) -> Tuple[Tensor, Tensor]:
    """Logits and offsets, (..., 4, S) each, of values (..., 8 S): of every side, of every bucket from the outer end, a
    logit and an offset."""
    return values.unflatten(-1, (4, -1, 2)).unbind(dim=-1)


@BOX_CODER_REGISTRY.register()
class Buckets:
    """Localisation by buckets (Wang et al., Side-Aware Boundary Localization for More Precise Object Detection, ECCV
    2020, the sections on bucketing and on rescoring by it).

    A proposal, scaled up, is divided into buckets along each axis; each side is looked for in the outer half of them on
    its own side. For each bucket a logit says whether the side lies there, and an offset how far the bucket's middle is
    from it, in buckets. The box is where the buckets of the highest logits and their offsets put its sides; sides that
    cross change places. The target of a side is where it is, in buckets from the outer end.

    Scores are multiplied by the mean of the sides' confidences: the probability of the most likely bucket, and that of
    the second, where it is next to it.

    Args:
        num_buckets: along an axis, even, 4 or more.
        scale_factors: of the proposals, above 0, in each stage; the last one's also in those after it. The release's.
        stage: which stage the coder is for, from 0.
        rescore: scores are multiplied.

    Raises:
        ValueError: for a value out of range.
    """

    sights = ("buckets",)

    def __init__(
        self,
        num_buckets: int = 14,
        scale_factors: Sequence[float] = (1.7, 1.5, 1.3),
        stage: int = 0,
        rescore: bool = True,
    ):
        require(self, "num_buckets", num_buckets, at_least=4, integer=True)
        check_range(self, "num_buckets", num_buckets, "even, half of them for each side", num_buckets % 2 == 0)
        require(self, "the number of scale_factors", len(scale_factors), at_least=1)
        for factor in scale_factors:
            require(self, "scale_factors", factor, above=0)
        require(self, "stage", stage, at_least=0, integer=True)
        self.num_buckets = num_buckets
        self.scale_factor = scale_factors[min(stage, len(scale_factors) - 1)]
        self.rescore = rescore

    @property
    def places(self) -> Tuple[int, int]:
        """Sides and buckets of each: a logit and an offset at each place."""
        return 4, self.num_buckets // 2

    @property
    def weights(self) -> Tuple[float, ...]:
        """Ones, as many as values: detectron2 takes the number of values from them."""
        return (1.0,) * (4 * self.num_buckets)

    def get_deltas(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """(N, 4): where the sides of ``gt_boxes`` (N, 4) are, in buckets of ``boxes`` (N, 4) from the outer end, along
        the axis: of the right and lower side mostly negative."""
        outer, bucket = self._scaled(boxes)
        return (gt_boxes.float() - outer) / bucket

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4C): the boxes, in pixels, that predicted values (N, 8 S C) put on ``boxes`` (N, 4)."""
        logits, offsets = self._of_boxes(deltas)
        best = logits.argmax(dim=-1, keepdim=True)
        at = middles(logits.shape[-1], logits).expand_as(logits).gather(-1, best) - offsets.gather(-1, best)
        outer, bucket = (each[:, None] for each in self._scaled(boxes))
        low, high = (outer + bucket * at[..., 0]).split(2, dim=-1)
        return torch.cat([torch.minimum(low, high), torch.maximum(low, high)], dim=-1).flatten(1)

    def confidences(self, values: Tensor) -> Optional[Tensor]:
        """(N, C), of predicted values (N, 8 S C); None without ``rescore``."""
        if not self.rescore:
            return None
        best, which = self._of_boxes(values)[0].softmax(dim=-1).topk(2, dim=-1)
        adjacent = (which[..., 0] - which[..., 1]).abs() == 1
        return (best[..., 0] + best[..., 1] * adjacent).mean(dim=-1)

    def _of_boxes(self, values: Tensor) -> Tuple[Tensor, Tensor]:
        return parts(values.float().unflatten(1, (-1, 4 * self.num_buckets)))  # (N, C, 4, S) each

    def _scaled(self, boxes: Tensor) -> Tuple[Tensor, Tensor]:
        """The scaled boxes, and the size of a bucket at each of their sides in pixels, (N, 4) each."""
        low, high = boxes.float().split(2, dim=1)
        middle, half = (low + high) / 2, (high - low) * (self.scale_factor / 2)
        bucket = (2 * half / self.num_buckets).clamp(min=_SMALLEST)
        return torch.cat([middle - half, middle + half], dim=1), bucket.repeat(1, 2)

    def __repr__(self):
        return f"Buckets(num_buckets={self.num_buckets}, scale_factor={self.scale_factor}, rescore={self.rescore})"
