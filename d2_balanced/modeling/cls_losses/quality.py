"""Losses whose target is the IoU of the box: scores that rank detections by how well they are localised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import CLS_LOSS_REGISTRY
from .base import ClassificationLoss, class_targets

__all__ = ["QualityFocal", "Varifocal"]

IOUS = ("predicted", "proposal")


class _QualityLoss(ClassificationLoss):
    """Sigmoid losses with a target of the RoI's IoU with its object for the object's class, and 0 for all others.

    Args:
        ious: "predicted": IoU of the box that the head predicts, which gets no gradient; "proposal": of the RoI itself.
        others: see :class:`ClassificationLoss`.
    """

    forms = ("sigmoid",)

    def __init__(self, ious: str = "predicted", **others):
        super().__init__(**others)
        check_range(self, "ious", ious, f"one of {list(IOUS)}", ious in IOUS)
        self.wants_ious = ious

    @staticmethod
    def targets(logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        """(R, K): the IoU in the label's column."""
        return class_targets(logits, labels) * ious.to(logits.dtype)[:, None]


@CLS_LOSS_REGISTRY.register()
class QualityFocal(_QualityLoss):
    """Quality focal loss (Li et al., Generalized Focal Loss, NeurIPS 2020).

    ``|y - p|^beta`` times the binary cross entropy of the score p and the IoU y.

    Args:
        beta: how much less the well estimated ones count, 0 or at least 1; 0: cross entropy.
        others: see :class:`_QualityLoss`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, beta: float = 2.0, **others):
        super().__init__(**others)
        require(self, "beta", beta, at_least=1, also=(0,))
        self.beta = beta

    def sigmoid_losses(self, logits, labels, ious):
        targets = self.targets(logits, labels, ious)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses if self.beta == 0 else (targets - logits.sigmoid()).abs() ** self.beta * losses


@CLS_LOSS_REGISTRY.register()
class Varifocal(_QualityLoss):
    """Varifocal loss (Zhang et al., VarifocalNet, CVPR 2021, eq. 2).

    For the object's class with IoU q > 0, q times the binary cross entropy of score p and q; for all others
    ``-alpha p^gamma log(1 - p)``.

    Args:
        alpha: factor of the negatives, at least 0.
        gamma: how much less the easy negatives count, at least 0.
        others: see :class:`_QualityLoss`. With alpha 1, gamma 0 and IoUs of 1 it is the sigmoid cross entropy.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0, **others):
        super().__init__(**others)
        for argument, value in (("alpha", alpha), ("gamma", gamma)):
            require(self, argument, value, at_least=0)
        self.alpha = alpha
        self.gamma = gamma

    def sigmoid_losses(self, logits, labels, ious):
        targets = self.targets(logits, labels, ious)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        negatives = self.alpha * (self.gamma * F.logsigmoid(logits)).exp()  # p^gamma; its gradient is finite at p = 0
        return losses * torch.where(targets > 0, targets, negatives)
