"""Box losses on deltas, elementwise: SmoothL1 and balanced L1.

    F: foreground RoIs (or anchors)     residual: |pred - target|, in normalised box deltas
"""

from __future__ import annotations

import math

import torch
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import BOX_LOSS_REGISTRY

__all__ = ["SmoothL1", "BalancedL1", "balanced_l1_loss"]

BALANCED_L1_FORMS = ("scaled", "released")
_MAX_EXPONENT = 60.0  # exp(60) leaves float32 room for the products
_MIN_EXPONENT = 1e-6  # below it float64 has no digits left of exp(gamma / alpha) - 1


def balanced_l1_loss(
    pred: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, form: str = "scaled"
) -> Tensor:
    """Balanced L1 loss (Libra R-CNN sec. 3.3, eq. 7-9), elementwise: the shape of ``pred``, at least float32.

    Below ``beta`` the gradient is ``alpha * ln(b * residual + 1)`` with ``b = exp(gamma / alpha) - 1``; above it is
    ``gamma``. The paper defines ``beta = 1`` only. For another ``beta``, ``scaled`` stretches that loss along the
    residual (gradient 0 at 0, ``gamma`` at ``beta``); ``released`` is the formula of the authors' code, whose gradient
    jumps at 0 and at ``beta``.
    """
    dtype = torch.promote_types(pred.dtype, torch.float32)
    residual = (pred.to(dtype) - target.to(dtype)).abs()
    if form == "scaled":
        return beta * _balanced_l1(residual / beta, alpha, gamma, 1.0)
    return _balanced_l1(residual, alpha, gamma, beta)


def _balanced_l1(residual: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    b = math.e ** (gamma / alpha) - 1
    small = residual.clamp(max=beta)  # keeps the branch that is not taken finite, and so its gradient
    inner = alpha / b * (b * small + 1) * torch.log(b * small / beta + 1) - alpha * small
    outer = gamma * residual + gamma / b - alpha * beta
    return torch.where(residual < beta, inner, outer)


@BOX_LOSS_REGISTRY.register()
class SmoothL1(nn.Module):
    """detectron2's box loss, fvcore's ``smooth_l1_loss`` (the default).

    Args:
        beta: residual at which the quadratic part ends, at least 0; 0 is L1. In yacs, detectron2's SMOOTH_L1_BETA key
            of the seat sets it.
        loss_weight: factor, for seats without a loss-weight key of detectron2's (RetinaNet); at least 0.

    Raises:
        ValueError: for a value out of range.
    """

    #: the argument that detectron2's own SMOOTH_L1_BETA key sets
    smooth_l1_beta_argument = "beta"

    def __init__(self, beta: float = 0.0, loss_weight: float = 1.0):
        super().__init__()
        require(self, "beta", beta, at_least=0)
        require(self, "loss_weight", loss_weight, at_least=0)
        self.beta = beta
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Elementwise loss, of the shape of ``pred``; empty input gives an empty, graph-connected result."""
        return self.loss_weight * smooth_l1_loss(pred, target, self.beta, reduction="none")

    def extra_repr(self):
        return f"beta={self.beta}, loss_weight={self.loss_weight}"


@BOX_LOSS_REGISTRY.register()
class BalancedL1(nn.Module):
    """Balanced L1 (Libra R-CNN sec. 3.3, eq. 7-9): raises the gradient of the well-regressed boxes (inliers).

    Args:
        alpha: larger values raise the inliers' gradients less; > 0, at most a million times ``gamma``.
        gamma: gradient of the outliers, upper bound of all; > 0, at most 60 times ``alpha``.
        beta: residual where inliers end; > 0. The paper: 1; the authors' RetinaNet: 0.11.
        form: for ``beta`` other than 1, ``scaled`` (continuous gradient) or ``released`` (the authors' formula); see
            :func:`balanced_l1_loss`.
        loss_weight: factor, for seats without a loss-weight key of detectron2's (RetinaNet); at least 0.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        form: str = "scaled",
        loss_weight: float = 1.0,
    ):
        super().__init__()
        for argument, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
            require(self, argument, value, above=0)
        require(self, "gamma", gamma, at_most=_MAX_EXPONENT * alpha)
        require(self, "alpha", alpha, at_most=gamma / _MIN_EXPONENT)
        check_range(self, "form", form, f"one of {list(BALANCED_L1_FORMS)}", form in BALANCED_L1_FORMS)
        require(self, "loss_weight", loss_weight, at_least=0)
        self.settings = {"alpha": alpha, "gamma": gamma, "beta": beta, "form": form}
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Elementwise loss, of the shape of ``pred``; empty input gives an empty, graph-connected result."""
        return self.loss_weight * balanced_l1_loss(pred, target, **self.settings)

    def extra_repr(self):
        settings = {**self.settings, "loss_weight": self.loss_weight}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())
