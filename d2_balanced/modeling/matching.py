"""Seat 2 for a whole batch: the best ground-truth box of every proposal or anchor, and the label that it gives.

Shape shorthand: Mi: ground-truth boxes of image i; Ni: its proposals or anchors; N: those of all images.
"""

from typing import Callable, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import torch
from detectron2.structures import Boxes
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .image_rows import to_device
from .matcher import fixed_matcher

__all__ = ["Matches", "box_table", "match_images", "pairwise_iou"]

_MOST_PAIRS = 1 << 20  # of ground truth and boxes that are compared at a time, or one image's
_NO_IOU = 2.0


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
    if fixed is None:
        found = [_called_on_image(*image, matcher) for image in zip(gt_boxes, boxes)]
    else:
        found = [image for group in _groups(gt_boxes, boxes) for image in _best_of_group(*group, fixed)]
    idxs, ious, labels = (torch.cat([part.to(device) for part in parts]) for parts in zip(*found))
    return Matches(idxs, ious, labels if fixed is None else _labels(fixed, ious, is_best=labels))


def pairwise_iou(table: Tensor, others: Tensor) -> Tensor:
    """IoUs (..., M, N) of boxes in tables (..., 5, M) and (..., 5, N): detectron2's ``pairwise_iou``, to the bit.

    A table has x1, y1, x2, y2 and area of its boxes, each in a row of its own, where operators are fastest.
    """
    table, others = table[..., :, None], others[..., None, :]
    high = torch.minimum(table[..., 2:4, :, :], others[..., 2:4, :, :])
    size = high.sub_(torch.maximum(table[..., :2, :, :], others[..., :2, :, :])).clamp_(min=0)
    inter = size[..., 0, :, :] * size[..., 1, :, :]
    union = (table[..., 4, :, :] + others[..., 4, :, :]).sub_(inter)
    return torch.where(inter > 0, inter / union, inter.new_zeros(()))


def box_table(boxes: Sequence[Boxes]) -> Tensor:
    """(B, 5, n): the table of every image's boxes, with zeros where it has fewer than n."""
    x1, y1, x2, y2 = planes = pad_sequence([each.tensor for each in boxes], batch_first=True).permute(2, 0, 1)
    return torch.cat([planes, ((x2 - x1) * (y2 - y1))[None]]).transpose(0, 1)


def _groups(gt_boxes: List[Boxes], boxes: List[Boxes]) -> Iterator[Tuple[List[Boxes], List[Boxes]]]:
    """The images, so many at a time as keep the matrices small."""
    pairs = max(len(gt) for gt in gt_boxes) * max(len(each) for each in boxes)
    step = max(1, _MOST_PAIRS // max(pairs, 1))
    return ((gt_boxes[n : n + step], boxes[n : n + step]) for n in range(0, len(boxes), step))


def _best_of_group(gt_boxes: List[Boxes], boxes: List[Boxes], matcher) -> Iterable[Tuple[Tensor, Tensor, Tensor]]:
    """For every image of its boxes (Ni,): index of the best ground truth, IoU with it, and whether it is the best box of
    some ground truth, if the matcher wants to know."""
    shared = all(each is boxes[0] for each in boxes)
    counts = [len(gt) for gt in gt_boxes]
    tables = box_table(gt_boxes), box_table(boxes[:1] if shared else boxes)
    # It may have to be computed on the CPU. What comes back is small.
    found = retry_if_cuda_oom(_best_of_tables)(*tables, counts, matcher.allow_low_quality_matches)
    return ([rows[: len(each)] for rows in image] for *image, each in zip(*found, boxes))


def _best_of_tables(gt: Tensor, boxes: Tensor, counts: List[int], low_quality: bool) -> Tuple[Tensor, Tensor, Tensor]:
    if gt.shape[2] == 0:
        ious = boxes.new_zeros(len(gt), boxes.shape[2])
        return ious.long(), ious, ious.bool()
    matrix = pairwise_iou(gt, boxes)  # (B, M, N)
    ious, idxs = matrix.max(dim=1)
    if not low_quality or boxes.shape[2] == 0:
        return idxs, ious, ious.bool()
    highest = matrix.amax(dim=2)
    absent = torch.arange(gt.shape[2], device=gt.device) >= to_device(counts, gt)[:, None]
    return idxs, ious, (matrix == highest.masked_fill(absent, _NO_IOU)[..., None]).any(dim=1)


def _called_on_image(gt_boxes: Boxes, boxes: Boxes, matcher: Callable) -> Tuple[Tensor, Tensor, Tensor]:
    matrix = retry_if_cuda_oom(pairwise_iou)(box_table([gt_boxes])[0], box_table([boxes])[0])
    idxs, labels = matcher(matrix)
    return idxs, matrix.gather(0, idxs[None])[0] if len(matrix) else matrix.new_zeros(len(idxs)), labels


def _labels(matcher, ious: Tensor, is_best: Tensor) -> Tensor:
    labels = torch.ones_like(ious, dtype=torch.int8)
    for label, low, high in zip(matcher.labels, matcher.thresholds[:-1], matcher.thresholds[1:]):
        labels.masked_fill_((ious >= low) & (ious < high), label)
    return labels.masked_fill_(is_best, 1) if matcher.allow_low_quality_matches else labels
