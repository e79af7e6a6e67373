"""IoU-balanced losses: positives that the head localises well count more."""

from __future__ import annotations

import torch

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import SAMPLE_WEIGHTS_REGISTRY
from .seat import RoIWeights, SampleWeights
from .weighing import with_sum_kept

__all__ = ["IoUBalanced"]

IOUS = ("predicted", "proposal")


@SAMPLE_WEIGHTS_REGISTRY.register()
class IoUBalanced(SampleWeights):
    """IoU-balanced losses (Wu et al., IoU-balanced Loss Functions for Single-stage Object Detection, 2019, sec. 3).

    A positive's classification loss has the weight ``iou ^ eta``, its box loss ``iou ^ lam``, each scaled so that the
    positives' losses keep their sum; the IoU gets no gradient. Negatives weigh 1.

    Args:
        eta, lam: exponents, at least 0; 0: all weights are 1. The paper: 1.5 both.
        ious: IoU with the object of the box that is "predicted" for its class (the paper's), or of the "proposal".

    Raises:
        ValueError: for a value out of range.
    """

    without_boxes = "set ious to 'proposal' and lam to 0"

    def __init__(self, eta: float = 1.5, lam: float = 1.5, ious: str = "predicted"):
        super().__init__()
        self.eta = require(self, "eta", eta, at_least=0)
        self.lam = require(self, "lam", lam, at_least=0)
        check_range(self, "ious", ious, f"one of {list(IOUS)}", ious in IOUS)
        self.ious = ious

    @property
    def reads_boxes(self) -> bool:
        return self.ious == "predicted" or self.lam > 0

    @torch.no_grad()
    def weigh(self, view, losses):
        positive, ious = losses.positive, losses.ious(self.ious).float()
        weights = (
            None if exponent == 0 else with_sum_kept(ious**exponent, each, positive)
            for exponent, each in ((self.eta, losses.cls), (self.lam, losses.box))
        )
        return RoIWeights(*weights)
