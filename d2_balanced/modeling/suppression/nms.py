"""NMS, detectron2's."""

from __future__ import annotations

from typing import List, Tuple

from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances
from torch import Tensor

from ..registry import NMS_REGISTRY
from .seat import Candidates, Predicted, Suppression

__all__ = ["NMS"]


@NMS_REGISTRY.register()
class NMS(Suppression):
    """detectron2's non-maximum suppression within every class: ``fast_rcnn_inference``.

    Args:
        joint: see :class:`Suppression`.
    """

    def forward(
        self, boxes: List[Tensor], scores: List[Tensor], image_sizes: List[Tuple[int, int]], predicted: Predicted
    ) -> List[Instances]:
        limits = predicted.score_thresh, predicted.nms_thresh, predicted.topk_per_image
        return fast_rcnn_inference(boxes, scores, image_sizes, *limits)[0]

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        return candidates.select(candidates.nms(nms_thresh))
