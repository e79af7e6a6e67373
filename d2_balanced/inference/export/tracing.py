"""A detector as a function of one tensor, for torch's tracing, which both formats begin with.

What detectron2 has is used: its ``TracingAdapter``, and the paths of its modules that ask ``torch.jit.is_tracing()``.
Three things are replaced while a detector is traced, each because Python would make a constant of a number that depends
on the image: ``len`` (detectron2's own patch, in more modules), ``min`` of the number of candidates of detectron2 0.6's
RetinaNet, and NMS (:mod:`.nms`).
"""

from __future__ import annotations

import sys
import warnings
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List
from unittest import mock

import torch
from detectron2.export import TracingAdapter
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

__all__ = ["OUTPUTS", "adapter_of", "outputs_of", "traceable"]

OUTPUTS = {
    "boxes": "pred_boxes",
    "classes": "pred_classes",
    "mask_scores": "mask_scores",
    "masks": "pred_masks",
    "scores": "scores",
}
"""Outputs of an exported file, in their order, and the fields of detectron2's ``Instances`` that they are."""

_PROPOSALS = "detectron2.modeling.proposal_generator.proposal_utils"
_ROI_HEADS = "detectron2.modeling.roi_heads.fast_rcnn"
_DENSE = "detectron2.modeling.meta_arch.dense_detector"
_RETINANET = "detectron2.modeling.meta_arch.retinanet"


def adapter_of(model: nn.Module, image: Tensor) -> TracingAdapter:
    """The detector as a module from an image (3, H, W) to a tuple of what :func:`outputs_of` has, sorted by name.

    After its first call the names are in ``outputs_schema.keys``.
    """
    # ONNX export leaves the detector in the mode of this module.
    return TracingAdapter(model, [{"image": image}], outputs_of).eval()


def outputs_of(model: nn.Module, inputs: List[Dict[str, Tensor]]) -> Dict[str, Tensor]:
    """What a detector in evaluation mode finds in one image, ``[{"image": (3, H, W)}]``.

    Returns ``boxes`` (N, 4), x1, y1, x2, y2 in pixels of that image, ``classes`` (N,) int64, ``scores`` (N,); of a
    model with masks ``masks`` (N, S, S), probabilities inside the boxes, of one that scores them ``mask_scores`` (N,).
    """
    if isinstance(model, GeneralizedRCNN):
        found = model.inference(inputs, do_postprocess=False)[0]
    else:
        found = model(inputs)[0]["instances"]
    fields = {name: found.get(field) for name, field in OUTPUTS.items() if found.has(field)}
    fields["boxes"] = fields["boxes"].tensor
    if "masks" in fields:
        fields["masks"] = fields["masks"][:, 0]
    return fields


@contextmanager
def traceable(model: nn.Module, nms) -> Iterator[None]:
    """What is traced inside holds for images of any size, with any number of objects.

    Args:
        nms: takes the place of ``batched_nms``; see :func:`.nms.onnx_nms`.
    """
    with ExitStack() as stack:
        stack.enter_context(patch_builtin_len(_modules_of(model)))
        stack.enter_context(mock.patch(f"{_DENSE}.min", _at_most, create=True))
        for module, num_classes in _nms_of(model).items():
            stack.enter_context(mock.patch(f"{module}.batched_nms", _with_classes(nms, num_classes)))
        stack.enter_context(warnings.catch_warnings())
        # Tracing warns of every shape that Python looks at; whether one became a constant is tried on images later.
        warnings.simplefilter("ignore")
        with torch.no_grad():
            yield


def _modules_of(model: nn.Module) -> List[str]:
    """Names of the modules, this package's and those of the user's own components, that may ask for a ``len``."""
    ours = {name for name in sys.modules if name.startswith("d2_balanced.modeling.")}
    parts = {type(part).__module__ for part in model.modules()}
    return sorted(ours | {name for name in parts if name.split(".")[0] not in ("torch", "detectron2", "fvcore")})


def _at_most(limit: int, number):
    return torch.clamp(number, max=limit) if isinstance(number, Tensor) else min(limit, number)


def _nms_of(model: nn.Module) -> Dict[str, int]:
    """Where NMS is called, and of how many classes."""
    if not isinstance(model, GeneralizedRCNN):
        return {_RETINANET: model.num_classes}
    return {_PROPOSALS: len(model.proposal_generator.in_features), _ROI_HEADS: model.roi_heads.num_classes}


def _with_classes(nms, num_classes: int):
    return lambda boxes, scores, classes, threshold: nms(boxes, scores, classes, threshold, num_classes)
