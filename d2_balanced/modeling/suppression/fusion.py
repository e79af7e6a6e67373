"""Weighted boxes fusion, of the library ensemble-boxes."""

from __future__ import annotations

import importlib
import logging
import math
from typing import List

import torch
from detectron2.structures import Boxes, pairwise_iou
from detectron2.utils.logger import log_first_n
from torch import Tensor

from ...utils.errors import ConfigError, Refusal
from ...utils.numbers import require
from ..arguments import check_range
from ..registry import NMS_REGISTRY
from .seat import Candidates, Suppression

__all__ = ["WeightedBoxesFusion"]

CONFIDENCES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


@NMS_REGISTRY.register()
class WeightedBoxesFusion(Suppression):
    """Weighted boxes fusion (Solovyev et al., Weighted Boxes Fusion, Image and Vision Computing 2021): boxes of
    a class that overlap become one, the mean weighted by their scores.

    Made for the boxes of several detectors, of parallel branches (``joint``), or of the views of test-time augmentation; of
    one detector it fuses the candidates.
    ``NMS_THRESH_TEST`` is not used. The library computes on the CPU, box by box: the costliest of the suppressions. Boxes
    without area are dropped.

    Args:
        iou_thresh: boxes that overlap a fused box by more belong to it, in [0, 1]; at 1 nothing is fused.
        conf_type: score of a fused box: "avg", the mean, lowered where fewer boxes than detectors agree; "max";
            "box_and_model_avg" or "absent_model_aware_avg", see the library.
        weights: of the detectors or branches, in their order, each above 0; empty: equal ones. One detector alone has
            no use for them, which a warning says; its views all weigh the same.
        joint: see :class:`Suppression`.

    Raises:
        ConfigError: where the library is not installed.
        ValueError: for a number or name out of range.
        Refusal: where it is used with another number of detectors or branches than ``weights``.
    """

    def __init__(
        self, iou_thresh: float = 0.55, conf_type: str = "avg", weights: List[float] = (), joint: bool = False
    ):
        super().__init__(joint)
        self.iou_thresh = require(self, "iou_thresh", iou_thresh, at_least=0, at_most=1)
        check_range(self, "conf_type", conf_type, f"one of {list(CONFIDENCES)}", conf_type in CONFIDENCES)
        self.conf_type = conf_type
        self.weights = [require(self, "weights", weight, above=0) for weight in weights]
        _library()

    def expect_sources(self, number: int) -> None:
        super().expect_sources(number)
        if self.weights and len(self.weights) != number:
            raise Refusal(
                f"weights={self.weights} (MODEL.BALANCED.NMS.WEIGHTS)", f"{number} detectors or branches",
                "each has one", f"give {number}, or none",
            )  # fmt: skip

    def of_views(self, number: int) -> WeightedBoxesFusion:
        other = super().of_views(number)
        other.weights = []
        return other

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        widths_heights = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        solid = candidates.select((widths_heights > 0).all(dim=1))
        if not len(solid.boxes):
            return solid
        boxes, scores, groups = self._fuse(solid)
        # Everything else (its class, its mask) a fused box has from the candidate of its group that is nearest to it.
        ious = pairwise_iou(Boxes(boxes), Boxes(solid.boxes))
        nearest = torch.where(groups[:, None] == solid.groups, ious, torch.full_like(ious, -1.0)).argmax(dim=1)
        return solid.select(nearest)._replace(boxes=boxes, scores=scores)

    def _fuse(self, candidates: Candidates):
        # A power of two, so that scaling to [0, 1] and back changes no bit.
        scale = 2.0 ** math.ceil(math.log2(float(candidates.boxes.max())))
        if candidates.sources is None:
            parts, weights = [candidates], []
            if self.weights:
                message = "WeightedBoxesFusion: weights=%s (MODEL.BALANCED.NMS.WEIGHTS) are not used: there is one detector."
                log_first_n(logging.WARNING, message % self.weights, name=__name__)
        else:
            # A detector that finds nothing here is counted, too: "avg" asks how many agree.
            number = max(self.num_sources, len(self.weights), int(candidates.sources.max()) + 1)
            parts = [candidates.select(candidates.sources == source) for source in range(number)]
            weights = self.weights
        found = _library().weighted_boxes_fusion(
            [_host(part.boxes / scale) for part in parts],
            [_host(part.scores) for part in parts],
            [_host(part.groups) for part in parts],
            weights=weights or None,
            iou_thr=self.iou_thresh,
            conf_type=self.conf_type,
        )
        boxes, scores, groups = (torch.as_tensor(each.copy()).to(candidates.boxes.device) for each in found)
        return boxes.to(candidates.boxes.dtype) * scale, scores.to(candidates.scores.dtype), groups.long()


def _host(values: Tensor):
    return values.double().cpu().numpy()


def _library():
    try:
        return importlib.import_module("ensemble_boxes")
    except ImportError as error:
        raise ConfigError(
            "WeightedBoxesFusion needs the library ensemble-boxes: pip install 'd2_balanced[fusion]'."
        ) from error
