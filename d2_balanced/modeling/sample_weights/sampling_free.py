"""Sampling-Free: all proposals are trained on, and the classification loss is kept as large as the box loss."""

from __future__ import annotations

import math
import torch

from ...utils.errors import Refusal
from ...utils.numbers import require
from ..arguments import check_range
from ..registry import SAMPLE_WEIGHTS_REGISTRY
from .seat import RoIWeights, SampleWeights

__all__ = ["SamplingFree"]

DIVIDE_BY = ("foreground", "rois")


@SAMPLE_WEIGHTS_REGISTRY.register()
class SamplingFree(SampleWeights):
    """Guided loss scaling and optimal bias initialisation (Chen et al., Is Heuristic Sampling Necessary in Training
    Deep Object Detectors?, 2019), in the ROI heads.

    The classification losses are scaled so that their mean is ``guide`` times the box loss, which the number of
    negatives does not change; the factor gets no gradient. A batch without foreground, which has no box loss, is not
    scaled. Of box losses below 0 (``KLLoss``) the sizes are the guide. The classifier's bias starts where it answers
    with ``prior`` foreground, the share at which its first loss is lowest.

    Args:
        guide: classification loss over box loss, detectron2's loss weights included; 0: it is not scaled.
        prior: share of the foreground among the RoIs, below 1, spread evenly over the classes; 0: the bias stays 0.
        all_proposals: train on all labeled proposals; otherwise on those that are sampled.
        divide_by: what the sum of the box losses is divided by: the number of "foreground" RoIs, as in the paper, or of
            all "rois", detectron2's.

    Raises:
        ValueError: for a value out of range.
    """

    reads_boxes = True
    to_sample = "set all_proposals to False, or leave one of them out"

    def __init__(
        self,
        guide: float = 1.0,
        prior: float = 0.01,
        all_proposals: bool = True,
        divide_by: str = "foreground",
    ):
        super().__init__()
        check_range(self, "divide_by", divide_by, f"one of {list(DIVIDE_BY)}", divide_by in DIVIDE_BY)
        self.guide = require(self, "guide", guide, at_least=0)
        self.prior = require(self, "prior", prior, at_least=0, below=1)
        self.all_proposals = all_proposals
        self.divide_by = divide_by

    @property
    def takes_all_proposals(self) -> bool:
        return self.all_proposals

    def prepare(self, predictor):
        """Set the classifier's bias; raises ``Refusal`` beside a prior of the classification loss."""
        if self.prior == 0:
            return
        loss, num_classes = predictor.cls_loss, predictor.num_classes
        if getattr(loss, "prior", None) is not None:
            of_loss = f"prior={loss.prior} of cls_loss={type(loss).__name__} (MODEL.BALANCED.CLS_LOSS)"
            own = f"prior={self.prior} of sample_weights=SamplingFree (MODEL.BALANCED.SAMPLE_WEIGHTS)"
            raise Refusal(own, of_loss, "both set the classifier's bias")
        of_class = self.prior / num_classes
        others = 1 - of_class if getattr(loss, "initial_bias", None) is not None else 1 - self.prior
        with torch.no_grad():
            predictor.cls_score.bias[:-1] = math.log(of_class / others)

    @torch.no_grad()
    def weigh(self, view, losses):
        foreground = losses.positive.sum()
        boxes, factor = torch.linalg.vector_norm(losses.box, ord=1) / max(len(losses.labels), 1), None
        if self.divide_by == "foreground":
            factor = len(losses.labels) / foreground.clamp(min=1)
            boxes = boxes * factor
            factor = factor.expand(len(losses.labels))
        if self.guide == 0:
            return RoIWeights(None, factor)
        of_cls, of_box = losses.loss_weights
        wanted, have = self.guide * of_box * boxes, of_cls * losses.cls.sum() / max(len(losses.labels), 1)
        scale = torch.where((foreground > 0) & (have > 0), wanted / have, torch.ones_like(have))
        return RoIWeights(scale.expand(len(losses.labels)), factor)
