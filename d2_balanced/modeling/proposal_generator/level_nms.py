"""NMS within the levels of a feature pyramid, until enough boxes are found.

    R: boxes of an image, level after level, the highest score of each first
"""

from __future__ import annotations

from typing import List

import torch
from detectron2.layers import batched_nms
from torch import Tensor
from torchvision.ops import nms

from d2_balanced.modeling.image_rows import count_selected, first_rows, repeat, to_device

__all__ = ["first_after_nms"]

# Where there are more boxes than this, torchvision's batched NMS takes classes (here: levels) one by one on the CPU;
# where there are fewer it moves them apart by an offset, whose rounding is part of the result.
_MOST_MOVED_APART = 1000


def first_after_nms(boxes: Tensor, scores: Tensor, level_sizes: List[int], threshold: float, num: int) -> Tensor:
    """Indices of the first ``num`` boxes that are left after NMS within each level, the highest score first: those of
    detectron2's ``batched_nms``, to the bit.

    Args:
        boxes, scores: (R, 4), not negative, and (R,).
        level_sizes: how many of the R are of which level.

    What is left of the best boxes does not depend on the others. So on the CPU, where NMS takes the time of all pairs,
    it begins with the best ``3 / 2 * num``, of which that many are mostly left, takes twice as many while they are too few,
    and ends when ``num`` are found.
    """
    if boxes.device.type != "cpu" or len(boxes) == 0:
        return batched_nms(boxes, scores, _levels(level_sizes, scores), threshold)[:num]
    few = len(boxes) <= _MOST_MOVED_APART
    placed = boxes + (_levels(level_sizes, boxes) * (boxes.max() + 1))[:, None] if few else boxes
    tried = num + num // 2
    kept = _nms_of_levels(placed, scores, level_sizes, threshold, tried)
    while len(kept) < num and tried < len(boxes):
        tried *= 2
        kept = _nms_of_levels(placed, scores, level_sizes, threshold, tried)
    found, order = scores[kept].sort(descending=True, stable=True)
    if not few and (found[1 : num + 1] == found[:-1][:num]).any():  # torchvision's order among equals is not stable
        return batched_nms(boxes, scores, _levels(level_sizes, scores), threshold)[:num]
    return kept[order[:num]]


def _nms_of_levels(boxes, scores, level_sizes, threshold, num_best) -> Tensor:
    """Indices of those of the best boxes that are left after NMS within each level, ascending."""
    best_sizes = level_sizes
    if num_best < len(scores):
        best_sizes = count_selected(scores >= scores.topk(num_best).values[-1], level_sizes)[1]
    levels = zip(boxes.split(level_sizes), scores.to(boxes).split(level_sizes), best_sizes)
    kept = [nms(level_boxes[:size], level_scores[:size], threshold) for level_boxes, level_scores, size in levels]
    return torch.cat(kept) + repeat(to_device(first_rows(level_sizes), kept[0]), [len(each) for each in kept])


def _levels(level_sizes: List[int], like: Tensor) -> Tensor:
    """(R,) the level of every box."""
    return repeat(torch.arange(len(level_sizes), dtype=like.dtype, device=like.device), level_sizes)
