"""Which detectors can be exported; docs/EXPORT.md has the same as a table."""

from __future__ import annotations

import torch
from detectron2.layers.deform_conv import DeformConv, ModulatedDeformConv
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from torch import nn

from ...modeling.roi_heads import BalancedROIHeads
from ...modeling.suppression import NMS
from ...utils.errors import ConfigError

__all__ = ["check_exportable"]

_ROI_HEADS = (BalancedROIHeads, StandardROIHeads, CascadeROIHeads)


def check_exportable(model: nn.Module, file_format: str) -> None:
    """Raise ``ConfigError`` with the reason if this detector cannot be written in this format."""
    reason = _reason(model, file_format)
    if reason:
        raise ConfigError(f"This detector cannot be exported as {file_format}: {reason} (docs/EXPORT.md).")


def _reason(model: nn.Module, file_format: str) -> str:
    name = type(model).__name__
    if type(model).forward in (GeneralizedRCNN.forward, RetinaNet.forward):
        is_rcnn = isinstance(model, GeneralizedRCNN)
        of_rcnn = _reason_of_rcnn(model) if is_rcnn else ""
        return of_rcnn or _reason_of_nms(model.roi_heads if is_rcnn else model) or _unknown_operator(model, file_format)
    return f"of {name} is not known what it finds, as it is of a GeneralizedRCNN or RetinaNet"


def _reason_of_rcnn(model: GeneralizedRCNN) -> str:
    heads = model.roi_heads
    if type(heads) not in _ROI_HEADS:
        known = ", ".join(kind.__name__ for kind in _ROI_HEADS)
        return f"of {type(heads).__name__} is not known how they find boxes, as it is of {known}"
    if model.proposal_generator is None:
        return "it needs precomputed proposals, and a file gets an image alone"
    if heads.keypoint_on:
        return "a file has no keypoints among its outputs"
    return ""


def _reason_of_nms(owner: nn.Module) -> str:
    nms = getattr(owner, "nms", None)
    if nms is None or type(nms) is NMS and not nms.joint:
        return ""
    name = f"{'joint ' * bool(getattr(nms, 'joint', False))}{type(nms).__name__}"
    return f"{name} (MODEL.BALANCED.NMS, .RETINANET.NMS) cannot be written into a file; NMS, one for each class, can"


def _unknown_operator(model: nn.Module, file_format: str) -> str:
    if any(getattr(part, "computes_in", None) == torch.bfloat16 for part in model.modules()):
        remedy = "export it with MODEL.LAYERS.PRECISION float32 (lazy: train.layers.precision=float32)"
        return f"its layers compute in bfloat16; {remedy}"
    deformable = [name for name, part in model.named_modules() if isinstance(part, (DeformConv, ModulatedDeformConv))]
    if file_format == "onnx" and deformable:
        return f"{deformable[0]} is a deformable convolution, which torch cannot write as ONNX; TorchScript can"
    return ""
