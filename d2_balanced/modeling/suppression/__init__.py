"""Suppressions: ``(boxes, scores, image sizes, what the heads predicted) -> detections`` (seat 8), at inference."""

from .fusion import WeightedBoxesFusion
from .iou_guided import IoUGuidedNMS
from .nms import NMS
from .seat import Candidates, Predicted, Suppression
from .soft_nms import SoftNMS
from .voting import BoxVoting, VarianceVoting

__all__ = [
    "BoxVoting",
    "Candidates",
    "IoUGuidedNMS",
    "NMS",
    "Predicted",
    "SoftNMS",
    "Suppression",
    "VarianceVoting",
    "WeightedBoxesFusion",
]
