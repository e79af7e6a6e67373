"""Class-balanced RoIs: the positives of a class count less, the more of them a minibatch has."""

from __future__ import annotations

import torch

from ...utils.numbers import require
from ..registry import SAMPLE_WEIGHTS_REGISTRY
from .seat import RoIWeights, SampleWeights

__all__ = ["ClassBalancedRoIs"]


@SAMPLE_WEIGHTS_REGISTRY.register()
class ClassBalancedRoIs(SampleWeights):
    """Every class among a minibatch's positives counts the same, in weights what online foreground balancing is in
    probabilities (Oksuz et al., Generating Positive Bounding Boxes for Balanced Training of Object Detectors, WACV
    2020: a positive is drawn with a probability of 1 / (classes x positives of its class)).

    A positive of a class with n positives in the minibatch, of all images of a process, has the weight ``n ^ -power``,
    scaled to a mean of 1 over the positives. Negatives weigh 1.

    Args:
        power: in [0, 1]; 1: every class counts the same; 0: every positive.
        boxes: the box losses are weighed, too.

    Raises:
        ValueError: for a value out of range.
    """

    without_boxes = "set boxes to False"

    def __init__(self, power: float = 1.0, boxes: bool = True):
        super().__init__()
        self.power = require(self, "power", power, at_least=0, at_most=1)
        self.boxes = boxes

    @property
    def reads_boxes(self) -> bool:
        return self.boxes

    @torch.no_grad()
    def weigh(self, view, losses):
        labels, positive = losses.labels, losses.positive
        ones = torch.ones_like(losses.cls, dtype=torch.float32)
        numbers = ones.new_zeros(losses.predictor.num_classes + 1).index_add_(0, labels, ones)
        weights = torch.where(positive, numbers[labels] ** -self.power, ones.new_zeros(()))
        mean = weights.sum() / positive.sum().clamp(min=1)
        weights = torch.where(positive, weights / mean, ones)
        return RoIWeights(weights, weights if self.boxes else None)
