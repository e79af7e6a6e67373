"""What a box loss is called with: deltas, boxes or corners, and what else it wants; in ROI heads, RPN and RetinaNet.

A box loss is called with predicted and target values (F, 4) and returns (F, 4) or (F,). It may have attributes:

- ``sees``: "deltas", detectron2's (the default); "boxes", decoded, in XYXY pixels; "corners", the boxes' offsets from
  the proposals' in units of the proposals' sizes, times the box weights of x and y; of another box coder than
  detectron2's, which says what can be seen of it (``box_coders/seat.py``), "buckets", the predicted values (F, 8S) and
  where the sides are (F, 4);
- ``wants_ious``: it is also called with ``ious=`` (F,), those of the predicted boxes, without gradient;
- ``wants_log_variances``: it is also called with ``log_variances=`` (F, 4); the predictor gets a layer for them;
- ``accumulate``: called as the loss is, once a training pass, by a loss that learns.

    F: foreground RoIs (or anchors)      C: boxes predicted a RoI, 1 or the number of classes
"""

from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

from ..returned import check_shape
from .overlap import elementwise_iou

__all__ = ["SIGHTS", "box_losses", "corner_variances"]


def _coded(transform, deltas: Tensor, proposals: Tensor, gt_boxes: Tensor):
    return deltas, transform.get_deltas(proposals, gt_boxes)


def _boxes(transform, deltas: Tensor, proposals: Tensor, gt_boxes: Tensor):
    return transform.apply_deltas(deltas, proposals), gt_boxes


def _corners(transform, deltas: Tensor, proposals: Tensor, gt_boxes: Tensor):
    units = _corner_units(transform, proposals)
    return tuple((boxes - proposals) / units for boxes in _boxes(transform, deltas, proposals, gt_boxes))


def _corner_units(transform, proposals: Tensor) -> Tensor:
    """(F, 4): the pixels that one unit of "corners" is."""
    return _divided(proposals[:, 2:] - proposals[:, :2], transform.weights[:2]).repeat(1, 2)


def _divided(sizes: Tensor, weights) -> Tensor:
    """(..., 2) over two numbers; a tensor of them would have to be copied to the device, which waits for it."""
    return torch.stack([sizes[..., 0] / weights[0], sizes[..., 1] / weights[1]], dim=-1)


_UNREDUCED = "the losses of every foreground RoI, without a sum or mean"
SIGHTS = {"deltas": _coded, "boxes": _boxes, "corners": _corners, "buckets": _coded}
"""What a loss may see, and ``(transform, deltas, proposals, gt_boxes) -> (pred, target)`` for each."""


def box_losses(
    loss: Callable,
    transform,
    deltas: Tensor,
    proposals: Tensor,
    gt_boxes: Tensor,
    log_variances: Optional[Tensor] = None,
    learn: bool = False,
) -> Tensor:
    """The unreduced losses, (F, 4) or (F,), of a box loss that is given what it asks for.

    Args:
        loss: see above.
        transform: the box coder; detectron2's ``Box2BoxTransform`` is between boxes and deltas.
        deltas: what is predicted for it, (F, 4) of detectron2's.
        proposals, gt_boxes: (F, 4) XYXY pixels.
        log_variances: (F, 4), for a loss that wants them.
        learn: this is the training pass, from which the loss may learn.
    """
    values = SIGHTS[getattr(loss, "sees", "deltas")](transform, deltas, proposals, gt_boxes)
    more = {}
    if getattr(loss, "wants_ious", False):
        with torch.no_grad():
            more["ious"] = elementwise_iou(transform.apply_deltas(deltas, proposals), gt_boxes)
    if getattr(loss, "wants_log_variances", False):
        more["log_variances"] = log_variances
    if learn and hasattr(loss, "accumulate"):
        with torch.no_grad():
            loss.accumulate(*values, **more)
    losses, num = loss(*values, **more), len(gt_boxes)
    return check_shape(loss, "a box loss, MODEL.BALANCED.BOX_LOSS", losses, (num, 4), (num,), meaning=_UNREDUCED)


def corner_variances(loss, transform, deltas: Tensor, log_variances: Tensor, proposals: Tensor) -> Tensor:
    """Variances (R, 4C) in square pixels of the corners of the predicted boxes, from log variances (R, 4C).

    Of a loss that sees deltas, those of centre and size are taken to be independent, and errors of the size to be small.
    """
    variances = log_variances.float().exp().unflatten(1, (-1, 4))
    if loss.sees == "corners":
        return (variances * _corner_units(transform, proposals)[:, None].square()).view_as(log_variances)
    boxes = transform.apply_deltas(deltas, proposals).view_as(variances)
    sizes = _divided((boxes[..., 2:] - boxes[..., :2]) / 2, transform.weights[2:])
    centers = _corner_units(transform, proposals)[:, None, :2]
    of_both = variances[..., :2] * centers.square() + variances[..., 2:] * sizes.square()
    return of_both.repeat(1, 1, 2).view_as(log_variances)
