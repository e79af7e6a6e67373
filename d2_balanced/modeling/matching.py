"""Seat 2 for a whole batch: the best ground-truth box of every proposal or anchor, and the label that it gives.

Shape shorthand: Mi: ground-truth boxes of image i; Ni: its proposals or anchors; N: those of all images.
"""

from typing import Callable, List, NamedTuple, Sequence, Tuple

import torch
from detectron2.structures import Boxes
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from .matcher import fixed_matcher

__all__ = ["Matches", "match_images", "pairwise_iou"]


class Matches(NamedTuple):
    """The best ground-truth box of every box, one image after the other."""

    idxs: Tensor
    """(N,) int64, its index among the ground truth of its image; 0 without any."""
    ious: Tensor
    """(N,) the IoU with it; 0 without any."""
    labels: Tensor
    """(N,) int8, the matcher's: 1 positive, 0 negative, -1 ignored."""


def match_images(matcher: Callable, gt_boxes: List[Boxes], boxes: List[Boxes]) -> Matches:
    """Match the boxes of every image to its ground truth.

    Args:
        matcher: see ``PROPOSAL_MATCHER_REGISTRY``. One that goes by IoU thresholds labels all images at once, any other
            is called for every image; the result is the same.
        gt_boxes, boxes: of every image, ``Boxes`` (Mi) and (Ni); the same object where images share their anchors.
    """
    device = boxes[0].device
    fixed = fixed_matcher(matcher)
    match = retry_if_cuda_oom(_best_of_image if fixed is not None else _called_on_image)
    asked = fixed.allow_low_quality_matches if fixed is not None else matcher
    # The matrix is (boxes x anchors): it may have to be computed on the CPU. What comes back is small.
    found = [match(*tables, asked) for tables in zip(_tables(gt_boxes), _tables(boxes))]
    idxs, ious, labels = (torch.cat([part.to(device) for part in parts]) for parts in zip(*found))
    return Matches(idxs, ious, labels if fixed is None else _labels(fixed, ious, is_best=labels))


def box_table(boxes: Boxes) -> Tensor:
    """(5, N): x1, y1, x2, y2 and area of the boxes, each in a row of its own, where operators are fastest."""
    return torch.cat([boxes.tensor.t(), boxes.area()[None]])


def _tables(boxes: List[Boxes]) -> Sequence[Tensor]:
    if all(each is boxes[0] for each in boxes):
        return [box_table(boxes[0])] * len(boxes)
    return box_table(Boxes.cat(boxes)).split([len(each) for each in boxes], dim=1)


def pairwise_iou(table: Tensor, others: Tensor) -> Tensor:
    """IoUs (M, N) of boxes in tables (5, M) and (5, N): detectron2's ``pairwise_iou``, to the bit."""
    high = torch.minimum(table[2:4, :, None], others[2:4, None])
    size = high.sub_(torch.maximum(table[:2, :, None], others[:2, None])).clamp_(min=0)
    inter = size[0] * size[1]
    union = (table[4][:, None] + others[4]).sub_(inter)
    return torch.where(inter > 0, inter / union, inter.new_zeros(()))


def _best_of_image(gt: Tensor, boxes: Tensor, low_quality: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Of every box (Ni,): index of the best ground truth, IoU with it, and whether no other box is better for some
    ground truth, where ``low_quality`` asks for it."""
    if gt.shape[1] == 0:
        ious = boxes.new_zeros(boxes.shape[1])
        return ious.long(), ious, ious.bool()
    matrix = pairwise_iou(gt, boxes)
    ious, idxs = matrix.max(dim=0)
    if not low_quality or boxes.shape[1] == 0:
        return idxs, ious, ious.new_empty(0).bool()
    return idxs, ious, (matrix == matrix.amax(dim=1, keepdim=True)).any(dim=0)


def _called_on_image(gt: Tensor, boxes: Tensor, matcher: Callable) -> Tuple[Tensor, Tensor, Tensor]:
    matrix = pairwise_iou(gt, boxes)
    idxs, labels = matcher(matrix)
    return idxs, matrix.gather(0, idxs[None])[0] if len(matrix) else matrix.new_zeros(len(idxs)), labels


def _labels(matcher, ious: Tensor, is_best: Tensor) -> Tensor:
    labels = torch.ones_like(ious, dtype=torch.int8)
    for label, low, high in zip(matcher.labels, matcher.thresholds[:-1], matcher.thresholds[1:]):
        labels.masked_fill_((ious >= low) & (ious < high), label)
    return labels.masked_fill_(is_best, 1) if matcher.allow_low_quality_matches else labels
