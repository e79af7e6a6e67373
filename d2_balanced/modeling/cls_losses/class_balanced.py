"""Class-balanced loss: RoIs of rare classes count more."""

from __future__ import annotations

import math
from typing import List, Optional

import torch
from torch import Tensor

from ...utils.numbers import require
from ..registry import CLS_LOSS_REGISTRY
from .class_counts import ClassCounts
from .focal import FocalLoss

__all__ = ["ClassBalanced"]


@CLS_LOSS_REGISTRY.register()
class ClassBalanced(FocalLoss):
    """Cross entropy or focal loss, weighted by the inverse of the label's effective number of samples (Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).

    A class with n objects has ``E = (1 - beta^n) / (1 - beta)`` of them that differ (their proposition 1); the weights
    of the K classes are ``1 / E``, scaled to a mean of 1 (sec. 4). The background's weight is 1: nobody annotates it.

    Args:
        beta: in [0, 1]; 0: all weights are 1; 1: the inverse of the number of objects.
        class_counts: objects of each class in the data set. None: shares of the positives sampled so far, of
            ``num_objects``.
        num_objects: objects in the data set, where ``class_counts`` does not give them.
        gamma: of the focal loss; 0: cross entropy.
        others: see :class:`FocalLoss`.

    Raises:
        ValueError: for a value out of range, or as many counts as there are not classes.
    """

    needs_classes = True
    focal_loss_arguments = ()

    def __init__(
        self,
        beta: float = 0.999,
        class_counts: Optional[List[float]] = None,
        num_objects: int = 10000,
        gamma: float = 0.0,
        **others,
    ):
        super().__init__(gamma=gamma, **others)
        require(self, "beta", beta, at_least=0, at_most=1)
        require(self, "num_objects", num_objects, at_least=1)
        self.beta = beta
        self.num_objects = num_objects
        self.counts = ClassCounts(type(self).__name__, class_counts)

    def adopt(self, num_classes: int) -> None:
        """Take over the predictor's number of classes; ``ValueError`` if there are not as many counts."""
        self.counts.adopt(num_classes)

    def of_form(self, logits, labels):
        losses = super().of_form(logits, labels)
        return losses * self.weights().to(losses.dtype)[labels]

    def weights(self) -> Tensor:
        """(K + 1,): the weight of every label, the background's last."""
        counts = self.counts()
        if self.counts.given is None:
            counts = counts / counts.sum().clamp(min=1) * self.num_objects
        counts = counts.clamp(min=1)
        if self.beta == 1:
            weights = 1 / counts
        else:  # 1 - beta^n, exact for beta near 1; the factor 1 - beta is lost in the scaling
            weights = 1 / -torch.expm1(counts * (math.log(self.beta) if self.beta > 0 else -math.inf))
        return torch.cat([weights / weights.mean(), weights.new_ones(1)])

    def accumulate(self, logits: Tensor, labels: Tensor) -> None:
        """Count a training pass's positives."""
        self.counts.accumulate(labels)
