"""Focal loss: easy RoIs count less."""

from __future__ import annotations

import torch
from fvcore.nn import sigmoid_focal_loss
from torch.nn import functional as F

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import CLS_LOSS_REGISTRY
from .base import ClassificationLoss, class_targets

__all__ = ["FocalLoss"]


@CLS_LOSS_REGISTRY.register()
class FocalLoss(ClassificationLoss):
    """Focal loss (Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4 and 5).

    ``-alpha_t (1 - p_t)^gamma log(p_t)``, where ``p_t`` is the probability of the truth: with a softmax that of the
    RoI's label, with sigmoids those of the answers of all classes' classifiers (fvcore's ``sigmoid_focal_loss``).

    Args:
        gamma: how much less the easy ones count, at least 0; 0: cross entropy.
        alpha: factor of the foreground, in [0, 1], and 1 - alpha of the background; -1: none. In RetinaNet,
            detectron2's FOCAL_LOSS_GAMMA and FOCAL_LOSS_ALPHA keys set both.
        others: see :class:`ClassificationLoss`.

    Raises:
        ValueError: for a value out of range.
    """

    #: the arguments that detectron2's own FOCAL_LOSS_ALPHA and FOCAL_LOSS_GAMMA keys set
    focal_loss_arguments = ("alpha", "gamma")

    def __init__(self, gamma: float = 2.0, alpha: float = -1.0, **others):
        super().__init__(**others)
        require(self, "gamma", gamma, at_least=0)
        require(self, "alpha", alpha, at_least=0, at_most=1, also=(-1,))
        check_range(self, "gamma", gamma, "0, or at least 1 with sigmoids", self.form == "softmax" or not 0 < gamma < 1)
        self.gamma = gamma
        self.alpha = alpha

    def softmax_losses(self, logits, labels):
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        missing = -(-cross_entropy).expm1()  # 1 - p_t, exact for p_t near 1; at 0 some powers have no gradient
        losses = missing.clamp(min=torch.finfo(logits.dtype).tiny) ** self.gamma * cross_entropy
        if self.alpha < 0:
            return losses
        foreground = labels < logits.shape[1] - 1
        return losses * (foreground * self.alpha + ~foreground * (1 - self.alpha))

    def sigmoid_losses(self, logits, labels):
        return sigmoid_focal_loss(logits, class_targets(logits, labels), alpha=self.alpha, gamma=self.gamma)
