"""The box loss of dense predictions (RPN, RetinaNet), with a pluggable loss (seat 5), and what does not fit there."""

from __future__ import annotations

from typing import Callable, List, Optional

import torch
from detectron2.layers import cat
from detectron2.modeling.box_regression import _dense_box_regression_loss
from torch import Tensor

from d2_balanced.modeling.box_predictor import check_box_loss_type
from d2_balanced.utils.errors import Refusal

__all__ = ["check_anchor_matcher", "check_dense_box_loss", "dense_box_loss"]


def check_anchor_matcher(owner: str, matcher) -> None:
    """Raises ``Refusal`` if anchors would be matched by a matcher that learns from an R-CNN's proposals."""
    _check_learns_here(owner, "anchor_matcher", matcher, "detectron2's Matcher")


def _check_learns_here(owner: str, argument: str, component, instead: str) -> None:
    if hasattr(component, "observe"):
        reason = f"{type(component).__name__} follows the proposals of an R-CNN, which {owner} does not have"
        remedy = f"use it in the ROI heads, and {instead} here"
        raise Refusal(f"{argument}={type(component).__name__}", owner, reason, remedy)


def check_dense_box_loss(owner: str, box_loss: Optional[Callable], box_reg_loss_type: str) -> None:
    """Raises ``Refusal`` if the box loss of a dense detector or RPN is one that learns from an R-CNN's proposals, or
    is combined with one of detectron2's losses on boxes."""
    _check_learns_here(owner, "box_loss", box_loss, "another box loss")
    check_box_loss_type(owner, box_loss, box_reg_loss_type)


def dense_box_loss(
    anchors: list,
    box2box_transform,
    pred_deltas: List[Tensor],
    gt_boxes: List[Tensor],
    positive: Tensor,
    box_loss: Optional[Callable],
    **settings,
) -> Tensor:
    """Sum of the box loss over the positive anchors; a graph-connected 0 without any.

    Args:
        anchors: ``Boxes`` of every level, (A_l, 4) each, R = sum of A_l.
        box2box_transform: gives the target deltas from anchors to ``gt_boxes``.
        pred_deltas: predictions of every level, (N, A_l, 4) each.
        gt_boxes: matched boxes of every image, (R, 4) each, absolute XYXY pixels; read for positives only.
        positive: (F,) indices of the positive anchors among those of all images (N * R), ascending.
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``; None: detectron2's loss with these ``settings``,
            ``box_reg_loss_type`` and ``smooth_l1_beta``.
    """
    anchors = type(anchors[0]).cat(anchors)
    anchors = anchors[positive % len(anchors)]
    deltas = cat(pred_deltas, dim=1).flatten(0, 1)[positive]
    gt_boxes = torch.cat(gt_boxes)[positive]
    if box_loss is not None:
        return box_loss(deltas, box2box_transform.get_deltas(anchors.tensor, gt_boxes)).sum()
    # As if the positives were all anchors of one image: detectron2's own code computes and masks all anchors.
    return _dense_box_regression_loss([anchors], box2box_transform, [deltas[None]], [gt_boxes], slice(None), **settings)
