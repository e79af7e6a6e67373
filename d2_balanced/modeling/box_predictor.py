"""detectron2's ``FastRCNNOutputLayers`` with a pluggable box loss (seat 5)."""

from __future__ import annotations

from typing import Callable, Optional

from detectron2.config import configurable
from detectron2.layers import nonzero_tuple
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import Tensor

from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY
from d2_balanced.modeling.spec import build_component
from d2_balanced.utils.errors import Refusal

__all__ = ["BalancedFastRCNNOutputLayers", "build_box_loss", "check_box_loss_type", "check_smooth_l1_beta"]

_DETECTRON2_LOSS_TYPE = "smooth_l1"


def check_box_loss_type(owner: str, box_loss: Optional[Callable], box_reg_loss_type: str) -> None:
    """Raises ``Refusal`` if a box loss on deltas is combined with one of detectron2's losses on boxes."""
    if box_loss is not None and box_reg_loss_type != _DETECTRON2_LOSS_TYPE:
        raise _two_losses(f"{owner}: box_loss={type(box_loss).__name__}", f"box_reg_loss_type={box_reg_loss_type!r}")


def _two_losses(one: str, other: str) -> Refusal:
    return Refusal(one, other, "both choose the box loss", f"leave one of them out (SmoothL1, {_DETECTRON2_LOSS_TYPE})")


def check_smooth_l1_beta(owner: str, box_loss: Optional[Callable], smooth_l1_beta: float) -> None:
    """Raises ``Refusal`` if detectron2's ``smooth_l1_beta`` is set beside a box loss that does not read it."""
    argument = getattr(box_loss, "smooth_l1_beta_argument", None)
    read = getattr(box_loss, argument) if argument else 0.0
    if box_loss is not None and smooth_l1_beta not in (0.0, read):
        beta, loss = f"{owner}: smooth_l1_beta={smooth_l1_beta} (SMOOTH_L1_BETA)", f"box_loss={type(box_loss).__name__}"
        raise Refusal(beta, loss, "the loss has settings of its own, and would ignore it", "leave it at 0")


def build_box_loss(node, key: str, *, smooth_l1_beta: float, loss_type: str, loss_type_key: str):
    """The box loss that the yacs node ``node`` at ``key`` describes; None where detectron2's own loss is kept.

    Args:
        smooth_l1_beta: value of detectron2's own key; it becomes the argument that the loss names in its
            ``smooth_l1_beta_argument``, if it has one.
        loss_type, loss_type_key: value and name of detectron2's key for IoU losses (giou, diou, ciou).

    Raises ``Refusal`` if both keys choose a loss.
    """
    if loss_type != _DETECTRON2_LOSS_TYPE:
        if dict(node) != {"NAME": "SmoothL1"}:
            raise _two_losses(f"{key}.NAME: {node.NAME}", f"{loss_type_key}: {loss_type}")
        return None
    loss_class = BOX_LOSS_REGISTRY.get(node.NAME) if node.NAME in BOX_LOSS_REGISTRY else None
    argument = getattr(loss_class, "smooth_l1_beta_argument", None)
    context = {argument: smooth_l1_beta} if argument else {}
    return build_component(BOX_LOSS_REGISTRY, node, key, **context)


class BalancedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Classifier and box regressor of one box head; the box loss is a component.

    Weights, keys, inference and the classification loss are detectron2's.

    Args:
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``; None keeps detectron2's own loss
            (``box_reg_loss_type``, ``smooth_l1_beta``). Its method ``adopt(bbox_reg_weights, num_classes)``, if it has
            one, is called with those of this predictor. The other arguments are ``FastRCNNOutputLayers``'.
    """

    @configurable
    def __init__(self, input_shape, *, box_loss: Optional[Callable] = None, **kwargs):
        super().__init__(input_shape, **kwargs)
        check_box_loss_type(type(self).__name__, box_loss, self.box_reg_loss_type)
        check_smooth_l1_beta(type(self).__name__, box_loss, self.smooth_l1_beta)
        self.box_loss = box_loss
        if hasattr(box_loss, "adopt"):  # a loss that measures proposals, in this predictor's units
            box_loss.adopt(self.box2box_transform.weights, self.num_classes)

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        ret["box_loss"] = build_box_loss(
            cfg.MODEL.BALANCED.BOX_LOSS,
            "MODEL.BALANCED.BOX_LOSS",
            smooth_l1_beta=cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA,
            loss_type=cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE,
            loss_type_key="MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
        )
        return ret

    def box_reg_loss(self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor):
        """Sum of the box loss over the foreground RoIs, divided by the number of all R sampled RoIs (at least 1).

        Args:
            proposal_boxes, gt_boxes: (R, 4) absolute XYXY pixels.
            pred_deltas: (R, 4) class-agnostic or (R, K * 4) class-specific.
            gt_classes: (R,) in [0, K]; K is background.

        Returns a scalar; a graph-connected 0 without foreground.
        """
        if self.box_loss is None:
            return super().box_reg_loss(proposal_boxes, gt_boxes, pred_deltas, gt_classes)
        foreground = nonzero_tuple((gt_classes >= 0) & (gt_classes < self.num_classes))[0]
        target = self.box2box_transform.get_deltas(proposal_boxes[foreground], gt_boxes[foreground])
        loss = self.box_loss(self._deltas_of_gt_class(pred_deltas, gt_classes, foreground), target)
        return loss.sum() / max(gt_classes.numel(), 1.0)

    def _deltas_of_gt_class(self, pred_deltas: Tensor, gt_classes: Tensor, rows: Tensor) -> Tensor:
        """Rows ``rows`` (F,) of the deltas, each for its ground-truth class: (F, 4)."""
        box_dim = len(self.box2box_transform.weights)
        if pred_deltas.shape[1] == box_dim:  # class-agnostic
            return pred_deltas[rows]
        return pred_deltas.view(-1, self.num_classes, box_dim)[rows, gt_classes[rows]]
