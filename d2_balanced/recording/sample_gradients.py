"""Loss and gradient of every RoI of a minibatch, from detached predictions: the model's own graph is not touched.

The factors that all RoIs share (loss weights, the normaliser) are left out, so only shares mean something.

Shape shorthand: R: RoIs; K: foreground classes.
"""

from __future__ import annotations

from typing import Tuple

import torch
from detectron2.layers.losses import ciou_loss, diou_loss
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor
from torch.nn import functional as F

__all__ = ["box_loss_and_gradient", "class_loss_and_gradient"]

_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


def class_loss_and_gradient(logits: Tensor, gt_classes: Tensor) -> Tuple[Tensor, Tensor]:
    """Cross entropy (R,) of logits (R, K+1), and the norm (R,) of its gradient with respect to them."""
    loss = F.cross_entropy(logits, gt_classes, reduction="none")
    target = gt_classes[:, None] == torch.arange(logits.shape[1], device=logits.device)
    gradient = logits.softmax(dim=1) - target.to(logits.dtype)
    return loss, gradient.norm(dim=1)


def box_loss_and_gradient(predictor, deltas: Tensor, proposals: Tensor, gt_boxes: Tensor) -> Tuple[Tensor, Tensor]:
    """The predictor's box loss (R,), and the norm (R,) of its gradient with respect to the deltas (R, 4).

    Args:
        deltas: of the ground truth's class.
        proposals, gt_boxes: (R, 4) XYXY pixels; rows without ground truth may hold anything.
    """
    with torch.enable_grad():
        deltas = deltas.detach().requires_grad_()
        loss = _box_loss(predictor, deltas, proposals, gt_boxes)
        (gradient,) = torch.autograd.grad(loss.sum(), deltas)
    return loss.detach(), gradient.norm(dim=1)


def _box_loss(predictor, deltas, proposals, gt_boxes):
    if predictor.box_reg_loss_type in _IOU_LOSSES:
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals)
        return _IOU_LOSSES[predictor.box_reg_loss_type](boxes, gt_boxes, reduction="none")
    target = predictor.box2box_transform.get_deltas(proposals, gt_boxes)
    box_loss = getattr(predictor, "box_loss", None)
    if box_loss is not None:
        return box_loss(deltas, target).sum(dim=1)
    return smooth_l1_loss(deltas, target, beta=predictor.smooth_l1_beta, reduction="none").sum(dim=1)
