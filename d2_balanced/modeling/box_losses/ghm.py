"""GHM-R: errors like many others, small ones and outliers, count less."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...utils.numbers import require
from ..gradient_density import GradientDensity
from ..registry import BOX_LOSS_REGISTRY

__all__ = ["GHMR"]


@BOX_LOSS_REGISTRY.register()
class GHMR(nn.Module):
    """GHM-R (Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019): the authentic smooth L1 loss
    ``sqrt(d^2 + mu^2) - mu`` of each residual d, divided by the gradient density of ``|d| / sqrt(d^2 + mu^2)``.

    Args:
        mu: where the loss turns from quadratic to linear, at least 0; 0 is L1. It is in the units of the deltas: the
            paper's 0.02 is for those of RetinaNet and RPN, in an R-CNN, whose deltas are times ``BBOX_REG_WEIGHTS``
            (10, 10, 5, 5), the same is 0.2.
        bins, momentum, divide_by: see :class:`~..gradient_density.GradientDensity`; with one bin all weights are 1.
        loss_weight: factor, for seats without a loss-weight key of detectron2's (RetinaNet); at least 0.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        mu: float = 0.02,
        bins: int = 10,
        momentum: float = 0.7,
        divide_by: str = "bins",
        loss_weight: float = 1.0,
    ):
        super().__init__()
        require(self, "mu", mu, at_least=0)
        require(self, "loss_weight", loss_weight, at_least=0)
        self.mu = mu
        self.loss_weight = loss_weight
        self.density = GradientDensity(type(self).__name__, bins, momentum, divide_by)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Losses (F, 4) of deltas (F, 4); empty input gives an empty, graph-connected result."""
        residual = self._residual(pred, target)
        losses = residual if self.mu == 0 else (residual.square() + self.mu**2).sqrt() - self.mu
        return self.loss_weight * (self.density(self._norms(residual)) * losses)

    def accumulate(self, pred: Tensor, target: Tensor) -> None:
        """Count a training pass's residuals."""
        self.density.accumulate(self._norms(self._residual(pred, target)))

    @staticmethod
    def _residual(pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).to(torch.promote_types(pred.dtype, torch.float32)).abs()

    def _norms(self, residual: Tensor) -> Tensor:
        """Gradient norms, in [0, 1]."""
        residual = residual.detach()
        return residual / (residual.square() + self.mu**2).sqrt().clamp(min=torch.finfo(residual.dtype).tiny)

    def extra_repr(self):
        return f"mu={self.mu}, loss_weight={self.loss_weight}"
