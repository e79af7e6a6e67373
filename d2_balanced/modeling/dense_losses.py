"""The losses of dense predictions (RPN, RetinaNet), with pluggable losses (seat 5), and what does not fit there."""

from __future__ import annotations

from typing import Callable, List, Optional

import torch
from detectron2.layers import cat
from detectron2.modeling.box_regression import _dense_box_regression_loss
from torch import Tensor

from ..utils.errors import Refusal
from .box_coders.seat import check_sees
from .box_losses.build import check_box_loss_type
from .box_losses.overlap import elementwise_iou
from .box_losses.seat import box_losses
from .cls_losses.seat import class_losses

__all__ = [
    "check_anchor_matcher",
    "check_dense_box_loss",
    "check_dense_cls_loss",
    "dense_box_loss",
    "dense_cls_loss",
]


def check_anchor_matcher(owner: str, matcher) -> None:
    """Raises ``Refusal`` if anchors would be matched by a matcher that learns from an R-CNN's proposals."""
    _check_learns_here(owner, "anchor_matcher", matcher, "detectron2's Matcher")


def _check_learns_here(owner: str, argument: str, component, instead: str) -> None:
    if hasattr(component, "observe"):
        reason = f"{type(component).__name__} follows the proposals of an R-CNN, which {owner} does not have"
        remedy = f"use it in the ROI heads, and {instead} here"
        raise Refusal(f"{argument}={type(component).__name__}", owner, reason, remedy)


def check_dense_box_loss(owner: str, box_loss: Optional[Callable], box_reg_loss_type: str) -> None:
    """Raises ``Refusal`` if the box loss of a dense detector or RPN is one that learns from an R-CNN's proposals, wants
    variances or buckets, which only an R-CNN predicts, or is combined with one that detectron2's own key chooses."""
    _check_learns_here(owner, "box_loss", box_loss, "another box loss")
    if getattr(box_loss, "wants_log_variances", False):
        loss, reason = f"box_loss={type(box_loss).__name__}", "the loss needs variances, which are not predicted here"
        raise Refusal(loss, owner, reason, "use it in the ROI heads, and another box loss here")
    check_sees(box_loss, None, owner)
    check_box_loss_type(owner, box_loss, box_reg_loss_type)


def check_dense_cls_loss(owner: str, cls_loss: Optional[Callable], num_classes: int) -> None:
    """Raises ``Refusal`` if a dense detector or RPN has a classification loss that means nothing there."""
    if cls_loss is None:
        return
    _check_learns_here(owner, "cls_loss", cls_loss, "another classification loss")
    loss = f"cls_loss={type(cls_loss).__name__}"
    if getattr(cls_loss, "reads_background", True):
        reason = "the loss reads the logit of the background, but here each class has a sigmoid, and there is no such logit"
        raise Refusal(loss, owner, reason, "choose a loss with form='sigmoid' (of EQLv2, objectness=False)")
    if num_classes == 1 and getattr(cls_loss, "needs_classes", False):
        raise Refusal(loss, owner, "the loss weighs classes against each other, and there is one only", "leave it out")
    if getattr(cls_loss, "prior", None) is not None:
        prior = f"{loss} with prior={cls_loss.prior}"
        raise Refusal(prior, owner, "the prior is that of the ROI heads' classifier", "leave the prior out")


def dense_box_loss(
    anchors: list,
    box2box_transform,
    pred_deltas: List[Tensor],
    gt_boxes: List[Tensor],
    positive: Tensor,
    box_loss: Optional[Callable],
    learn: bool,
    **settings,
) -> Tensor:
    """Sum of the box loss over the positive anchors; a graph-connected 0 without any.

    Args:
        anchors: ``Boxes`` of every level, (A_l, 4) each, R = sum of A_l.
        box2box_transform: between anchors and boxes.
        pred_deltas: predictions of every level, (N, A_l, 4) each.
        gt_boxes: matched boxes of every image, (R, 4) each, absolute XYXY pixels; read for positives only.
        positive: (F,) indices of the positive anchors among those of all images (N * R), ascending.
        box_loss: see ``box_losses/seat.py``; None: detectron2's loss with these ``settings``, ``box_reg_loss_type`` and
            ``smooth_l1_beta``.
        learn: this is the training pass, from which the loss may learn.
    """
    anchors, deltas, gt_boxes = _rows(anchors, pred_deltas, gt_boxes, positive)
    if box_loss is not None:
        return box_losses(box_loss, box2box_transform, deltas, anchors.tensor, gt_boxes, learn=learn).sum()
    # As if the positives were all anchors of one image: detectron2's own code computes and masks all anchors.
    return _dense_box_regression_loss([anchors], box2box_transform, [deltas[None]], [gt_boxes], slice(None), **settings)


def _rows(anchors, pred_deltas, gt_boxes, rows):
    """``Boxes`` (F), deltas (F, 4) and matched boxes (F, 4) of some anchors; arguments as of :func:`dense_box_loss`."""
    anchors = type(anchors[0]).cat(anchors)
    return anchors[rows % len(anchors)], cat(pred_deltas, dim=1).flatten(0, 1)[rows], torch.cat(gt_boxes)[rows]


def dense_cls_loss(
    cls_loss: Callable,
    logits: Tensor,
    labels: Tensor,
    rows: Tensor,
    anchors: list,
    box2box_transform,
    pred_deltas: List[Tensor],
    gt_boxes: List[Tensor],
    positive: Tensor,
    learn: bool,
) -> Tensor:
    """Sum of a classification loss over some anchors; a graph-connected 0 without any.

    Args:
        cls_loss: a loss that does not read the background's logit, see ``cls_losses/seat.py``.
        logits, labels: (S, K) and (S,) in [0, K], where K is background.
        rows: (S,) indices of these anchors among those of all images, with the positive ones among them.
        others: see :func:`dense_box_loss`.
    """
    ious = None
    if getattr(cls_loss, "wants_ious", ""):
        of_positives, deltas, targets = _rows(anchors, pred_deltas, gt_boxes, positive)
        boxes = of_positives.tensor
        if cls_loss.wants_ious == "predicted":
            boxes = box2box_transform.apply_deltas(deltas.detach(), boxes)
        of_all = boxes.new_zeros(sum(len(each) for each in gt_boxes))
        ious = of_all.index_copy_(0, positive, elementwise_iou(boxes, targets))[rows]
    # One class after the other in memory: what a loss leaves of it is contiguous, and its bits are those of a vector.
    with_background = torch.cat([logits.t(), logits.new_zeros(1, len(logits))]).t()
    return class_losses(cls_loss, with_background, labels, ious, learn).sum()
