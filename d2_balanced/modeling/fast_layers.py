"""How the layers of a detector compute: number format, memory layout, frozen normalisation folded into convolutions.

What is done with the layers' results stays in float32: matching, sampling, box coding, losses, statistics, NMS.
"""

from __future__ import annotations

import functools
import logging
from typing import Iterator

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads import ROIHeads
from torch import Tensor, nn
from torch.nn import functional as F

from .predictions import BoxPredictions, log_variances_of
from .roi_heads.iou_branch import IoUBranch

__all__ = ["PRECISIONS", "set_layers"]

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")

_DEVICES = ("cpu", "cuda")
# Modules that are no layers, but hold them.
_HOLDERS = (RPN, ROIHeads, IoUBranch)
# Where a head's `forward` goes on to losses or detections, its layers are called by these methods (mask_branch.py).
_PARTS_OF_HEADS = ("layers", "features", "predict")


def set_layers(
    model: nn.Module, precision: str = "float32", channels_last: bool = False, fold_frozen_norm: bool = False
) -> None:
    """Change, in place, how the layers of ``model`` compute, in training as at inference. At the defaults nothing changes.

    Weights keep their names, values and float32, so checkpoints go from any setting to any other.

    Args:
        model: a detector, on its device.
        precision: "bfloat16" computes convolutions and matrix products in it (autocast). Each group of layers
            (backbone, RPN head, box head, predictor, mask head, ...) takes float32 and gives float32.
        channels_last: convolutions have their weights, and so their results, in this memory layout.
        fold_frozen_norm: a convolution and the ``FrozenBatchNorm2d`` after it are computed as one convolution, equal
            but for rounding.

    Raises ``ValueError`` for another precision, or a device that it is not for.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if fold_frozen_norm:
        foldable = [each for each in model.modules() if type(each) is Conv2d and type(each.norm) is FrozenBatchNorm2d]
        for module in foldable:
            module.__class__ = _FoldedConv2d
        if not foldable:
            logger.warning("FOLD_FROZEN_NORM changes nothing: no convolution of this model has a FrozenBatchNorm2d after it.")
    if precision == "bfloat16":
        _require_bfloat16(next(model.parameters()).device)
        for layer in list(_layers(model)):
            _compute_in_bfloat16(layer)


def _require_bfloat16(device: torch.device) -> None:
    if device.type == "meta":  # built without memory, to see whether it can be: it computes nothing
        return
    if device.type not in _DEVICES:
        raise ValueError(f"precision bfloat16 is for {' and '.join(_DEVICES)}, the model is on {device.type}")
    if device.type == "cpu" and not _has_bfloat16():
        logger.warning("This processor has no instructions for bfloat16: float32 will be faster.")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        logger.warning("This GPU has no units for bfloat16: SOLVER.AMP.ENABLED (float16) will be faster.")


def _has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; True where this torch cannot tell."""
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        return True


def _layers(holder: nn.Module) -> Iterator[nn.Module]:
    """The groups of layers, each the outermost module of its kind that has weights."""
    for child in holder.children():
        if isinstance(child, (*_HOLDERS, nn.ModuleList)):
            yield from _layers(child)
        elif next(child.parameters(), None) is not None:
            yield child


def _compute_in_bfloat16(layer: nn.Module) -> None:
    """Give the module a subclass of its class, so that copies of it compute in bfloat16, too."""
    kind = type(layer)
    parts = _PARTS_OF_HEADS if callable(getattr(kind, "layers", None)) else ("forward",)
    methods = {name: _in_bfloat16(getattr(kind, name)) for name in parts if hasattr(kind, name)}
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "computes_in": torch.bfloat16}
    layer.__class__ = type(kind.__name__, (kind,), {**methods, **names})


def _in_bfloat16(method):
    @functools.wraps(method)
    def compute(self, *args, **kwargs):
        with torch.autocast(next(self.parameters()).device.type, torch.bfloat16):
            return _float32(method(self, *args, **kwargs))

    return compute


def _float32(result):
    """The tensors in what a layer returns, those of bfloat16 as float32."""
    if isinstance(result, Tensor):
        return result.float() if result.dtype == torch.bfloat16 else result
    if isinstance(result, BoxPredictions):
        return BoxPredictions(*map(_float32, result), _float32(log_variances_of(result)))
    if isinstance(result, dict):
        return type(result)((name, _float32(each)) for name, each in result.items())
    if isinstance(result, (list, tuple)):
        values = [_float32(each) for each in result]
        return type(result)(*values) if hasattr(result, "_fields") else type(result)(values)
    return result


class _FoldedConv2d(Conv2d):
    """``Conv2d`` whose ``norm``, a ``FrozenBatchNorm2d``, is part of its weights while it computes."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        weight = self.weight * scale[:, None, None, None]
        x = F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)
