"""Which box loss a config chooses, and choices that exclude each other."""

from __future__ import annotations

from typing import Callable, Optional

from detectron2.layers.losses import ciou_loss, diou_loss
from fvcore.nn import giou_loss

from ...utils.errors import Refusal
from ..registry import BOX_LOSS_REGISTRY
from ..spec import build_component
from .l1 import SmoothL1

__all__ = ["build_box_loss", "check_box_loss_type", "check_smooth_l1_beta", "detectron2_box_loss"]

_DETECTRON2_LOSS_TYPE = "smooth_l1"


class _IoULossOfDetectron2:
    sees = "boxes"

    def __init__(self, function):
        self.function = function

    def __call__(self, pred, target):
        return self.function(pred, target, reduction="none")


_IOU_LOSSES = {
    name: _IoULossOfDetectron2(function)
    for name, function in (("giou", giou_loss), ("diou", diou_loss), ("ciou", ciou_loss))
}


def detectron2_box_loss(loss_type: str, smooth_l1_beta: float) -> Callable:
    """The loss that detectron2's own settings choose, unreduced, to the bit."""
    return _IOU_LOSSES[loss_type] if loss_type in _IOU_LOSSES else SmoothL1(smooth_l1_beta)


def check_box_loss_type(owner: str, box_loss: Optional[Callable], box_reg_loss_type: str) -> None:
    """Raises ``Refusal`` if a box loss is combined with one that detectron2's own key chooses."""
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
