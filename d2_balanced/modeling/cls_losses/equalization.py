"""Equalization loss v2: classes that get more negative than positive gradient are punished less."""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from ...utils.numbers import Extended, require
from ..iteration_sums import IterationSums
from ..registry import CLS_LOSS_REGISTRY
from .base import ClassificationLoss, class_targets

__all__ = ["EQLv2"]


@CLS_LOSS_REGISTRY.register()
class EQLv2(ClassificationLoss):
    """Equalization loss v2 (Tan et al., Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object
    Detection, CVPR 2021).

    Binary cross entropy of every class, where a class's negatives are weighted by ``r = f(g)`` and its positives by
    ``q = 1 + alpha (1 - r)``. g is the ratio of its accumulated positive gradient to its accumulated negative one, both
    as weighted, and ``f(g) = 1 / (1 + exp(-gamma (g - mu)))``. Before the first iteration ends all weights are 1.

    Args:
        gamma, mu: slope and middle of f; gamma above 0. With mu = -inf all weights are 1.
        alpha: how much positives of neglected classes gain, at least 0.
        objectness: as in the authors' code, the last column is a classifier of the background, whose weights are 1, and
            scores are multiplied by one minus its score. Without it the loss also serves RPN and RetinaNet.
        others: see :class:`ClassificationLoss`.

    Raises:
        ValueError: for a value out of range.
    """

    forms = ("sigmoid",)
    class_dims = {"gradients": 1}  # engine/class_weights.py

    def __init__(self, gamma: float = 12.0, mu: Extended = 0.8, alpha: float = 4.0, objectness: bool = True, **others):
        super().__init__(**others)
        require(self, "gamma", gamma, above=0)
        require(self, "mu", mu, also=(-math.inf,))
        require(self, "alpha", alpha, at_least=0)
        self.gamma = gamma
        self.mu = mu
        self.alpha = alpha
        self.objectness = objectness
        self.gradients: Optional[Tensor] = None

    @property
    def reads_background(self) -> bool:
        """With ``objectness`` the last column is a classifier, too."""
        return self.objectness

    def adopt(self, num_classes: int) -> None:
        """Take over the predictor's number of classes."""
        del self.gradients
        self.register_buffer("gradients", torch.zeros(2, num_classes, dtype=torch.float64))  # positive, negative
        self.sums = IterationSums(type(self).__name__, 2 * num_classes)

    def of_form(self, logits, labels):
        logits = self._columns(logits)
        targets = class_targets(logits, labels)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (self._weights(targets) * losses).sum(dim=1)

    def scores(self, logits):
        if not self.objectness:
            return super().scores(logits)
        scores = logits.sigmoid()
        return torch.cat([scores[:, :-1] * (1 - scores[:, -1:]), scores[:, -1:]], dim=1)

    def accumulate(self, logits: Tensor, labels: Tensor) -> None:
        """Add the gradients of a training pass with respect to the logits, by class, as they are weighted."""
        logits = self._columns(logits)
        targets = class_targets(logits, labels)
        gradients = (self._weights(targets) * (logits.sigmoid() - targets).abs())[:, : self.gradients.shape[1]].double()
        positive = targets[:, : gradients.shape[1]] > 0
        self.sums.add(torch.cat([(gradients * positive).sum(dim=0), (gradients * ~positive).sum(dim=0)]))

    def end_iteration(self, iteration: int) -> None:
        """Add what the iteration accumulated, on all processes; a collective call."""
        self.gradients.add_(self.sums.take().view_as(self.gradients))

    def _columns(self, logits: Tensor) -> Tensor:
        """The columns that have a classifier, (R, K+1) or (R, K)."""
        logits = logits if self.objectness else logits[:, :-1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _weights(self, targets: Tensor) -> Tensor:
        """(R, C): q where the target is 1, r where it is 0."""
        if self.gradients is None:
            raise RuntimeError("EQLv2: the number of classes is not known; call adopt(num_classes)")
        positive, negative = self.gradients
        ratio = torch.where(negative > 0, positive / negative, math.inf)
        of_negatives = torch.sigmoid(self.gamma * (ratio - self.mu))
        if self.objectness:
            of_negatives = F.pad(of_negatives, (0, 1), value=1.0)
        of_positives = 1 + self.alpha * (1 - of_negatives)
        return torch.where(targets > 0, of_positives, of_negatives).to(targets.dtype)
