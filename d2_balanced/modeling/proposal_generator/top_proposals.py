"""Which of an RPN's predictions become proposals, in all images at once.

    N: images      A_l: anchors of level l      K: candidates of an image, all levels      R: candidates that are left
"""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

import torch
from detectron2.layers import cat
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor

from d2_balanced.modeling.image_rows import first_rows, repeat, selected_rows, to_device

from .level_nms import first_after_nms

__all__ = ["Candidates", "top_candidates", "top_proposals"]

# Equal logits come in another order from topk than from sort, so it has to be the one that detectron2 calls: main topk,
# 0.6 sort.
_CALLS_TOPK = "topk" in find_top_rpn_proposals.__code__.co_names


class Candidates(NamedTuple):
    """The anchors with the highest scores of every level, decoded; level after level, the highest score first."""

    boxes: Tensor
    """(N, K, 4), absolute XYXY pixels."""
    scores: Tensor
    """(N, K), logits."""
    level_sizes: List[int]
    """How many of the K are of which level."""


def top_candidates(anchors, logits, deltas, box2box_transform, num) -> Candidates:
    """At most ``num`` candidates a level. Only these are decoded.

    Args:
        anchors: ``Boxes`` (A_l) of every level.
        logits, deltas: of every level, (N, A_l) and (N, A_l, 4).
        box2box_transform: applies the deltas.
    """
    image = torch.arange(len(logits[0]), device=logits[0].device)[:, None]
    scores, chosen = zip(*(_highest(level, num) for level in logits))
    chosen_anchors = cat([level.tensor[index] for level, index in zip(anchors, chosen)], dim=1)
    chosen_deltas = cat([level[image, index] for level, index in zip(deltas, chosen)], dim=1)
    boxes = box2box_transform.apply_deltas(chosen_deltas.flatten(0, 1), chosen_anchors.flatten(0, 1))
    return Candidates(boxes.view_as(chosen_anchors), cat(scores, dim=1), [level.shape[1] for level in scores])


def _highest(logits: Tensor, num: int) -> Tuple[Tensor, Tensor]:
    """At most ``num`` of every image's logits (N, A), the highest first, and their places."""
    if _CALLS_TOPK:
        return logits.topk(min(num, logits.shape[1]), dim=1)
    scores, places = logits.sort(descending=True, dim=1)
    return scores[:, :num], places[:, :num]


def top_proposals(
    candidates: Candidates,
    image_sizes: List[Tuple[int, int]],
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> List[Instances]:
    """What detectron2's ``find_top_rpn_proposals`` makes of the same candidates, to the bit.

    Boxes are clipped; those that are not finite, or not larger than ``min_box_size``, are dropped, as are duplicates
    within a level. Returns the ``post_nms_topk`` best of every image, the highest score first, with ``proposal_boxes``
    and ``objectness_logits``. NMS apart, the host waits for the device once.

    Raises ``FloatingPointError`` for values that are not finite in ``training``.
    """
    boxes, scores, level_sizes = candidates
    finite = boxes.isfinite().all(dim=-1) & scores.isfinite()
    boxes = boxes.clamp(min=0).minimum(to_device([(w, h, w, h) for h, w in image_sizes], boxes, boxes.dtype)[:, None])
    large = (boxes[..., 2:] - boxes[..., :2] > min_box_size).all(dim=-1)
    mask = torch.cat([(finite & large).flatten(), finite.all()[None]])  # the last one: whether nothing is amiss
    rows, counts = selected_rows(mask, [*level_sizes * len(boxes), 1])
    if training and not counts[-1]:
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
    rows = rows[: sum(counts[:-1])]
    num_levels = len(level_sizes)
    counts = [counts[n * num_levels : (n + 1) * num_levels] for n in range(len(boxes))]
    boxes, scores = boxes.flatten(0, 1)[rows], scores.flatten()[rows]
    return _best_after_nms(boxes, scores, counts, image_sizes, nms_thresh, post_nms_topk)


def _best_after_nms(boxes, scores, counts, image_sizes, nms_thresh, num) -> List[Instances]:
    """The best of boxes (R, 4), of which ``counts`` has the numbers of every image's levels."""
    sizes = [sum(of_levels) for of_levels in counts]
    images = zip(boxes.split(sizes), scores.split(sizes), counts)
    kept = [first_after_nms(*image, nms_thresh, num) for image in images]
    first, sizes = to_device(first_rows(sizes), kept[0]), [len(each) for each in kept]
    rows = torch.cat(kept) + repeat(first, sizes)
    proposals = zip(image_sizes, boxes[rows].split(sizes), scores[rows].split(sizes))
    return [Instances(size, proposal_boxes=Boxes(b), objectness_logits=s) for size, b, s in proposals]
