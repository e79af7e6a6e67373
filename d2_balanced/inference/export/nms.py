"""NMS within each class, as an exported detector does it: what it removes is what eager detectron2 removes.

torchvision's ``batched_nms`` moves classes apart by an offset where there are few boxes, and takes them one by one
where there are many: the rounding of the offset is part of the result. While it is traced it always moves them, however
many there are; with many classes, whose offsets are large, a trace then removes other boxes than the detector itself.

    M: boxes      C: classes (or levels of a pyramid)      S: boxes that are left
"""

from __future__ import annotations

import sys

import torch
from detectron2.layers import shapes_to_tensor
from torch import Tensor
from torchvision.ops import boxes as box_ops

__all__ = ["onnx_nms", "torchscript_nms"]

_MOST_MOVED_APART = 1000  # torchvision's, on the CPU


def torchscript_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_classes: int) -> Tensor:
    """``batched_nms`` that counts its boxes whenever the file is run; arguments and result as of :func:`onnx_nms`."""
    return torch.jit.script(box_ops.batched_nms)(boxes.float(), scores, classes, threshold)


def onnx_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_classes: int) -> Tensor:
    """Indices (S,) of the boxes that are left, the highest score first, by one ``NonMaxSuppression`` for all classes.

    Args:
        boxes, scores, classes: (M, 4), (M,) and (M,) int64; M may be 0.
        threshold: a box goes if its IoU with a better one of its class is greater.
        num_classes: C.
    """
    boxes, scores = boxes.float(), scores.float()
    few = shapes_to_tensor([boxes.shape[0]]) <= _MOST_MOVED_APART
    largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()  # of no boxes, too
    placed = boxes + (classes.to(boxes) * (largest + 1) * few.to(boxes))[:, None]
    of_class = classes[None] == torch.arange(num_classes, device=classes.device)[:, None]  # (C, M)
    by_class = torch.where(of_class, scores[None], torch.full_like(scores, -torch.inf)[None])
    rows = _NonMaxSuppression.apply(placed, by_class, threshold).sort()[0]  # among equals the first one is to lead
    return rows[scores[rows].sort(descending=True)[1]]


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator of that name: boxes (M, 4), scores (C, M), -inf where a box is not of a class -> indices (S,)."""

    @staticmethod
    def forward(ctx, boxes, scores, threshold):
        best, classes = scores.max(dim=0)
        return box_ops.batched_nms(boxes, best, classes, threshold)

    @staticmethod
    def symbolic(g, boxes, scores, threshold):
        def constant(value):
            return g.op("Constant", value_t=torch.tensor(value))

        first = constant([0])
        selected = g.op(
            "NonMaxSuppression",
            g.op("Unsqueeze", boxes, first),
            g.op("Unsqueeze", scores, first),
            constant([sys.maxsize]),  # boxes of a class
            constant([float(threshold)]),
            constant([torch.finfo(torch.float32).min]),  # scores have to be greater
        )  # (S, 3): image, class, box
        return g.op("Squeeze", g.op("Gather", selected, constant([2]), axis_i=1), constant([1]))
