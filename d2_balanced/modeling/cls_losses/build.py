"""Which classification loss a config chooses, and choices that exclude each other."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from ...utils.errors import Refusal
from ..registry import CLS_LOSS_REGISTRY
from ..spec import build_component

__all__ = ["build_cls_loss", "build_dense_cls_loss", "check_cls_loss", "check_focal_settings"]


def check_cls_loss(owner: str, cls_loss: Optional[Callable], use_sigmoid_ce: bool) -> None:
    """Raises ``Refusal`` if a classification loss is combined with the one that detectron2's own key chooses."""
    if cls_loss is not None and use_sigmoid_ce:
        raise _two_losses(f"{owner}: cls_loss={type(cls_loss).__name__}", "use_sigmoid_ce=True")


def _two_losses(one: str, other: str) -> Refusal:
    return Refusal(one, other, "both choose the classification loss", "leave one of them out (CrossEntropy, False)")


def build_cls_loss(node, key: str, use_sigmoid_ce: bool = False):
    """The classification loss that the yacs node ``node`` at ``key`` describes, for ROI heads.

    None where detectron2's main has its own: ``use_sigmoid_ce`` is the value of its key USE_SIGMOID_CE.

    Raises ``Refusal`` if both keys choose a loss.
    """
    if use_sigmoid_ce:
        if dict(node) != {"NAME": "CrossEntropy"}:
            raise _two_losses(f"{key}.NAME: {node.NAME}", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE: True")
        return None
    return build_component(CLS_LOSS_REGISTRY, node, key)


def build_dense_cls_loss(node, key: str, focal_settings: Optional[Dict[str, float]] = None):
    """The classification loss that the yacs node ``node`` at ``key`` describes, for RPN or RetinaNet.

    Losses that can be softmax or sigmoid are sigmoid there.

    Args:
        focal_settings: ``{argument: value}`` of detectron2's own keys of RetinaNet's focal loss, for the losses that
            name these arguments in ``focal_loss_arguments``.
    """
    loss_class = CLS_LOSS_REGISTRY.get(node.NAME) if node.NAME in CLS_LOSS_REGISTRY else None
    arguments = getattr(loss_class, "focal_loss_arguments", ())
    context: Dict[str, Any] = {name: value for name, value in (focal_settings or {}).items() if name in arguments}
    if "FORM" not in node and "sigmoid" in getattr(loss_class, "forms", ()):
        context["form"] = "sigmoid"
    return build_component(CLS_LOSS_REGISTRY, node, key, **context)


def check_focal_settings(owner: str, cls_loss: Optional[Callable], settings: Dict[str, float], unset) -> None:
    """Raises ``Refusal`` if detectron2's settings of RetinaNet's focal loss are set beside a loss that ignores them.

    Args:
        settings: ``{argument: value}``, those of the detector.
        unset: ``{argument: value}``, detectron2's defaults.
    """
    for argument, value in settings.items():
        reads = argument in getattr(cls_loss, "focal_loss_arguments", ())
        used = getattr(cls_loss, argument) if reads else unset[argument]
        if cls_loss is not None and value not in (unset[argument], used):
            setting = f"{owner}: focal_loss_{argument}={value} (FOCAL_LOSS_{argument.upper()})"
            reason = "the loss has settings of its own, and would ignore it"
            raise Refusal(setting, f"cls_loss={type(cls_loss).__name__}", reason, f"leave it at {unset[argument]}")
