"""What a detector keeps of what it finds in an image, asked of the model itself: for those who merge detections."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from ..utils.errors import ConfigError

__all__ = ["TestLimits", "limits_of"]


class TestLimits(NamedTuple):
    """``nms_thresh``: IoU above which the lower score of a class goes; ``detections``: an image, at most (-1: all);
    ``score_thresh``: what does not exceed it is left out."""

    __test__ = False  # pytest, this is no test

    nms_thresh: float
    detections: int
    score_thresh: float


def limits_of(model: nn.Module) -> TestLimits:
    """The limits of a two-stage detector, a RetinaNet or a wrapper of one (its ``model``).

    Raises ``ConfigError`` for a model of another kind, which does not tell them in detectron2's way.
    """
    if hasattr(model, "roi_heads"):
        predictor = _predictor(model.roi_heads)
        if hasattr(predictor, "test_nms_thresh") and hasattr(predictor, "test_topk_per_image"):
            return _limits(predictor, predictor.test_topk_per_image)
    elif hasattr(model, "test_nms_thresh") and hasattr(model, "max_detections_per_image"):
        return _limits(model, model.max_detections_per_image)
    elif hasattr(model, "model"):
        return limits_of(model.model)
    raise ConfigError(
        f"{type(model).__name__} does not say at which IoU it removes duplicates: no test_nms_thresh as detectron2's "
        "FastRCNNOutputLayers and RetinaNet have it. What it finds in several views of an image cannot be merged."
    )


def _limits(owner: nn.Module, detections: int) -> TestLimits:
    return TestLimits(owner.test_nms_thresh, detections, getattr(owner, "test_score_thresh", 0.0))


def _predictor(heads: nn.Module):
    """The predictor whose boxes are the detections: of the last stage, and of the branch that gives the boxes."""
    if hasattr(heads, "test_predictor"):
        return heads.test_predictor
    predictor = getattr(heads, "box_predictor", None)
    return predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
