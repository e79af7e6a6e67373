"""Seesaw loss: samples of frequent classes punish rare classes less, unless they are mistaken for them."""

from __future__ import annotations

from typing import List, Optional

from torch import Tensor
from torch.nn import functional as F

from ...utils.numbers import require
from ..registry import CLS_LOSS_REGISTRY
from .base import ClassificationLoss
from .class_counts import ClassCounts

__all__ = ["SeesawLoss"]


@CLS_LOSS_REGISTRY.register()
class SeesawLoss(ClassificationLoss):
    """Seesaw loss (Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021).

    Cross entropy in which a sample of class i counts ``exp(z_j)`` of another class j ``S_ij = M_ij C_ij`` times:

    - mitigation ``M_ij = min(1, N_j / N_i)^p``: a class j with fewer samples N_j is punished less;
    - compensation ``C_ij = max(1, sigma_j / sigma_i)^q``: unless it has the higher probability sigma, of the softmax.

    The paper has a classifier of its own for object or background. Here the background is one of the K+1 classes, as in
    detectron2, and takes no part: factors of pairs with the background are 1.

    Args:
        p: strength of the mitigation, at least 0; 0: none.
        q: strength of the compensation, at least 0; 0: none. With p = q = 0 it is cross entropy.
        class_counts: objects of each class in the data set; None (the paper): the positives sampled so far.
        others: see :class:`ClassificationLoss`.

    Raises:
        ValueError: for a value out of range, or as many counts as there are not classes.
    """

    forms = ("softmax",)

    def __init__(self, p: float = 0.8, q: float = 2.0, class_counts: Optional[List[float]] = None, **others):
        super().__init__(**others)
        for argument, value in (("p", p), ("q", q)):
            require(self, argument, value, at_least=0)
        self.p = p
        self.q = q
        self.counts = ClassCounts(type(self).__name__, class_counts)

    def adopt(self, num_classes: int) -> None:
        """Take over the predictor's number of classes; ``ValueError`` if there are not as many counts."""
        self.counts.adopt(num_classes)

    def softmax_losses(self, logits, labels):
        return F.cross_entropy(logits + self._log_factors(logits.detach(), labels), labels, reduction="none")

    def _log_factors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(R, K+1): ln S_ij of every RoI's label i; 0 for j = i and where one of the two is the background."""
        log_counts = self.counts().clamp(min=1).log().to(logits.dtype)
        num_classes = len(log_counts)
        own = labels.clamp(max=num_classes - 1)  # the background's rows are zeroed below
        mitigation = self.p * (log_counts - log_counts[own][:, None]).clamp(max=0)
        compensation = self.q * (logits[:, :-1] - logits.gather(1, own[:, None])).clamp(min=0)
        factors = (mitigation + compensation) * (labels < num_classes)[:, None]
        return F.pad(factors, (0, 1))

    def accumulate(self, logits: Tensor, labels: Tensor) -> None:
        """Count a training pass's positives."""
        self.counts.accumulate(labels)
