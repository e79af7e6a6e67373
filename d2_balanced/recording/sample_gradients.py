"""Loss and gradient of every RoI of a minibatch, from detached predictions: the model's own graph is not touched.

The factors that all RoIs share (loss weights, the normaliser) are left out, so only shares mean something.

Shape shorthand: R: RoIs; K: foreground classes.
"""

from __future__ import annotations

from typing import List, Tuple

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F

from ..modeling.box_losses.build import detectron2_box_loss
from ..modeling.box_losses.seat import box_losses

__all__ = ["box_loss_and_gradient", "class_loss_and_gradient"]


def class_loss_and_gradient(predictor, predictions, samples: List[Instances]) -> Tuple[Tensor, Tensor]:
    """The predictor's classification loss (R,), and the norm (R,) of its gradient with respect to the logits (R, K+1).

    Args:
        predictions: logits and deltas, as the predictor gives them.
        samples: the minibatches that they were predicted for, with ``gt_classes``.
    """
    with torch.enable_grad():
        logits = predictions[0].detach().float().requires_grad_()
        if getattr(predictor, "cls_loss", None) is None:
            loss = F.cross_entropy(logits, torch.cat([s.gt_classes for s in samples]), reduction="none")
        else:
            loss = predictor.class_losses((logits, predictions[1].detach()), samples)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient.norm(dim=1)


def box_loss_and_gradient(predictor, deltas, proposals, gt_boxes, positive, log_variances=None):
    """The predictor's box loss (R,), and the norm (R,) of its gradient with respect to the deltas (R, 4).

    Args:
        deltas: of the ground truth's class.
        proposals, gt_boxes: (R, 4) XYXY pixels; rows without ground truth may hold anything.
        positive: (R,) mask. A loss that compares the samples with each other gets these rows only, and the others are 0.
        log_variances: (R, 4), where they are predicted.
    """
    rows = slice(None)
    if hasattr(getattr(predictor, "box_loss", None), "accumulate"):
        rows = positive.nonzero()[:, 0]
    others = proposals[rows], gt_boxes[rows], None if log_variances is None else log_variances[rows].detach()
    with torch.enable_grad():
        deltas = deltas[rows].detach().requires_grad_()
        loss = _box_loss(predictor, deltas, *others)
        (gradient,) = torch.autograd.grad(loss.sum(), deltas)
    losses, norms = proposals.new_zeros(2, len(proposals), dtype=loss.dtype)
    losses[rows], norms[rows] = loss.detach(), gradient.norm(dim=1).to(loss.dtype)
    return losses, norms


def _box_loss(predictor, deltas, proposals, gt_boxes, log_variances):
    loss = getattr(predictor, "box_loss", None)
    if loss is None:
        loss = detectron2_box_loss(predictor.box_reg_loss_type, predictor.smooth_l1_beta)
    losses = box_losses(loss, predictor.box2box_transform, deltas, proposals, gt_boxes, log_variances)
    return losses if losses.dim() == 1 else losses.sum(dim=1)
