"""Box losses that see boxes: the family of IoU losses.

    F: foreground RoIs (or anchors); boxes are XYXY pixels, w and h their sizes
"""

from __future__ import annotations

import math
from typing import Tuple

import torch
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from ...utils.numbers import require
from ..registry import BOX_LOSS_REGISTRY

__all__ = ["BoundedIoU", "CIoU", "DIoU", "EIoU", "GIoU", "IoULoss", "elementwise_iou"]


def elementwise_iou(boxes: Tensor, others: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU (F,) of boxes (F, 4) with the others (F, 4), row by row; 0 for boxes without area. Differentiable."""
    inner = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    inner_w, inner_h = inner.clamp(min=0).unbind(dim=1)
    intersection = inner_w * inner_h
    return intersection / (_area(boxes) + _area(others) - intersection).clamp(min=eps)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _centers_and_sizes(boxes: Tensor) -> Tuple[Tensor, Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def _iou_and_union(pred: Tensor, target: Tensor, eps: float) -> Tuple[Tensor, Tensor]:
    """IoU (F,), and area of the union (F,), as in torchvision's losses; these index by a mask, which waits for the device.

    Column by column, as there: gradients are added up in the same order, so that they are equal to the bit.
    """
    x1, y1, x2, y2 = pred.unbind(dim=1)
    left, top, right, bottom = target.unbind(dim=1)
    inner_left, inner_top = torch.max(x1, left), torch.max(y1, top)
    inner_right, inner_bottom = torch.min(x2, right), torch.min(y2, bottom)
    overlap = (inner_bottom > inner_top) & (inner_right > inner_left)
    area = (inner_right - inner_left) * (inner_bottom - inner_top)
    intersection = torch.where(overlap, area, area.new_zeros(()))
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - intersection
    return intersection / (union + eps), union


def _sizes_around(pred: Tensor, target: Tensor) -> Tensor:
    """Width and height (F, 2) of the smallest box around both."""
    return torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])


def _distance(pred: Tensor, target: Tensor, eps: float) -> Tensor:
    """Squared distance (F,) of the centres, in squared diagonals of the smallest box around both."""
    (center, _), (wanted, _) = _centers_and_sizes(pred), _centers_and_sizes(target)
    return (center - wanted).square().sum(dim=1) / (_sizes_around(pred, target).square().sum(dim=1) + eps)


class _OverlapLoss(nn.Module):
    """A loss of decoded boxes, called with predicted and target boxes (F, 4); (F,), or (F, 4) by parameter.

    Its scale differs from SmoothL1's, mostly by far: detectron2's loss-weight key goes with it.

    Args:
        loss_weight: factor, for seats without a loss-weight key of detectron2's (RetinaNet); at least 0.
        eps: keeps quotients and logarithms finite; above 0.
    """

    #: what the loss is called with, see ``seat.py``
    sees = "boxes"

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-7):
        super().__init__()
        require(self, "loss_weight", loss_weight, at_least=0)
        require(self, "eps", eps, above=0, below=1)
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Losses of boxes (F, 4) against ``target`` (F, 4); empty input gives an empty, graph-connected result."""
        return self.loss_weight * self.losses(pred, target)

    def losses(self, pred: Tensor, target: Tensor) -> Tensor:
        """:meth:`forward` without the factor."""
        raise NotImplementedError

    def extra_repr(self):
        return ", ".join(f"{n}={v!r}" for n, v in vars(self).items() if isinstance(v, float))


@BOX_LOSS_REGISTRY.register()
class IoULoss(_OverlapLoss):
    """``-ln(IoU)`` (Yu et al., UnitBox, ACM MM 2016); boxes that do not overlap get no gradient.

    Args:
        eps: smallest IoU whose logarithm is taken.
        loss_weight: see :class:`_OverlapLoss`.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-6):
        super().__init__(loss_weight, eps)

    def losses(self, pred, target):
        return -elementwise_iou(pred, target).clamp(min=self.eps).log()


@BOX_LOSS_REGISTRY.register()
class BoundedIoU(_OverlapLoss):
    """Bounded IoU loss (Tychsen-Smith and Petersson, Improving Object Localization with Fitness NMS and Bounded IoU
    Loss, CVPR 2018): one loss for each of x, y, w and h, (F, 4).

    Each is the Huber loss of one minus the highest IoU that the parameter's error leaves possible:
    ``max(0, (w_t - 2 |dx|) / (w_t + 2 |dx|))`` for a centre, ``min(w / w_t, w_t / w)`` for a size.

    Args:
        beta: where the Huber loss becomes linear, as in fvcore's ``smooth_l1_loss``; at least 0.
        loss_weight, eps: see :class:`_OverlapLoss`.
    """

    def __init__(self, beta: float = 0.2, loss_weight: float = 1.0, eps: float = 1e-7):
        super().__init__(loss_weight, eps)
        require(self, "beta", beta, at_least=0)
        self.beta = beta

    def losses(self, pred, target):
        (center, size), (wanted_center, wanted_size) = _centers_and_sizes(pred), _centers_and_sizes(target)
        shift = 2 * (center - wanted_center).abs()
        of_centers = ((wanted_size - shift) / (wanted_size + shift).clamp(min=self.eps)).clamp(min=0)
        smaller, larger = torch.minimum(size, wanted_size), torch.maximum(size, wanted_size)
        bounds = torch.cat([of_centers, smaller / larger.clamp(min=self.eps)], dim=1)
        return smooth_l1_loss(bounds, torch.ones_like(bounds), self.beta)


@BOX_LOSS_REGISTRY.register()
class GIoU(_OverlapLoss):
    """``1 - IoU + (C - U) / C``, U the union's area and C that of the smallest box around both (Rezatofighi et al.,
    Generalized Intersection over Union, CVPR 2019); torchvision's and detectron2's own "giou" have the same
    values.

    For the arguments see :class:`_OverlapLoss`.
    """

    def losses(self, pred, target):
        iou, union = _iou_and_union(pred, target, self.eps)
        (x1, y1, x2, y2), (left, top, right, bottom) = pred.unbind(dim=1), target.unbind(dim=1)
        low_x, low_y = torch.min(x1, left), torch.min(y1, top)
        around = (torch.max(x2, right) - low_x) * (torch.max(y2, bottom) - low_y)
        return 1 - (iou - (around - union) / (around + self.eps))


@BOX_LOSS_REGISTRY.register()
class DIoU(_OverlapLoss):
    """``1 - IoU`` plus the squared distance of the centres, in diagonals of the smallest box around both (Zheng et al.,
    Distance-IoU Loss, AAAI 2020, eq. 7); torchvision's and detectron2's own "diou" have the same values.

    For the arguments see :class:`_OverlapLoss`.
    """

    def losses(self, pred, target):
        return 1 - _iou_and_union(pred, target, self.eps)[0] + _distance(pred, target, self.eps)


@BOX_LOSS_REGISTRY.register()
class CIoU(_OverlapLoss):
    """:class:`DIoU` plus ``alpha v``, v the squared difference of the aspect ratios' angles and alpha, which gets no gradient,
    larger for a higher IoU (Zheng et al., Distance-IoU Loss, AAAI 2020, eq. 10); torchvision's and detectron2's own "ciou"
    have the same values.

    For the arguments see :class:`_OverlapLoss`.
    """

    def losses(self, pred, target):
        iou = _iou_and_union(pred, target, self.eps)[0]
        (_, size), (_, wanted) = _centers_and_sizes(pred), _centers_and_sizes(target)
        angles = [torch.atan(each[:, 0] / each[:, 1]) for each in (wanted, size)]
        v = 4 / math.pi**2 * (angles[0] - angles[1]).square()
        alpha = (v / (1 - iou + v + self.eps)).detach()
        return 1 - iou + _distance(pred, target, self.eps) + alpha * v


@BOX_LOSS_REGISTRY.register()
class EIoU(_OverlapLoss):
    """Efficient IoU loss (Zhang et al., Focal and Efficient IOU Loss for Accurate Bounding Box Regression, 2021).

    :class:`DIoU` plus the squared differences of widths and heights, in widths and heights of the smallest box around
    both, all of it times ``IoU^gamma``, which gets no gradient (Focal-EIoU; the paper: 0.5).

    Args:
        gamma: how much more boxes of high IoU count, at least 0; 0: EIoU.
        loss_weight, eps: see :class:`_OverlapLoss`.
    """

    def __init__(self, gamma: float = 0.0, loss_weight: float = 1.0, eps: float = 1e-7):
        super().__init__(loss_weight, eps)
        require(self, "gamma", gamma, at_least=0)
        self.gamma = gamma

    def losses(self, pred, target):
        (_, size), (_, wanted_size) = _centers_and_sizes(pred), _centers_and_sizes(target)
        distance = _distance(pred, target, self.eps)
        sizes = ((size - wanted_size).square() / (_sizes_around(pred, target).square() + self.eps)).sum(dim=1)
        iou = elementwise_iou(pred, target)
        return iou.detach() ** self.gamma * (1 - iou + distance + sizes)
