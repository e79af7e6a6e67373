"""GHM-C: easy RoIs and outliers, of which there are many, count less."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..gradient_density import GradientDensity
from ..registry import CLS_LOSS_REGISTRY
from .base import ClassificationLoss, class_targets

__all__ = ["GHMC"]


@CLS_LOSS_REGISTRY.register()
class GHMC(ClassificationLoss):
    """GHM-C (Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019): cross entropy, divided by the
    gradient density of the example.

    The gradient norm is ``g = |p - p*|``, that of the cross entropy with respect to the logit of the truth: of each
    class's classifier with sigmoids (the paper), of the RoI's label with a softmax.

    Args:
        bins, momentum, divide_by: see :class:`~..gradient_density.GradientDensity`. One bin is cross entropy.
        others: see :class:`ClassificationLoss`.

    Raises:
        ValueError: for a value out of range.
    """

    #: Every bin counts the same, so the sum grows with the easy examples, which are nearly all that a RetinaNet has.
    mean_of_examples = True

    def __init__(self, bins: int = 30, momentum: float = 0.75, divide_by: str = "bins", **others):
        super().__init__(**others)
        self.density = GradientDensity(type(self).__name__, bins, momentum, divide_by)

    def softmax_losses(self, logits, labels):
        return self.density(self._norms(logits, labels)) * F.cross_entropy(logits, labels, reduction="none")

    def sigmoid_losses(self, logits, labels):
        losses = F.binary_cross_entropy_with_logits(logits, class_targets(logits, labels), reduction="none")
        return self.density(self._norms(logits, labels)) * losses

    def _norms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Gradient norms (R,) or, with sigmoids, (R, K)."""
        logits = logits.detach().float()
        if self.form == "softmax":
            return 1 - logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return (logits.sigmoid() - class_targets(logits, labels)).abs()

    def accumulate(self, logits: Tensor, labels: Tensor) -> None:
        """Count a training pass's examples."""
        self.density.accumulate(self._norms(logits if self.form == "softmax" else logits[:, :-1], labels))
