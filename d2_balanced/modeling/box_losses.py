"""Box regression losses: ``loss(pred (F, 4), target (F, 4)) -> (F, 4)``, unreduced (seat 5).

    F: foreground RoIs (or anchors)     residual: prediction - target, in normalised box deltas

Predictors sum the result, normalise it as detectron2 does, and multiply it by detectron2's own loss-weight keys.
"""

from __future__ import annotations

import math

import torch
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY

__all__ = ["SmoothL1"]


def _check(owner: nn.Module, argument: str, value: float, allowed: str, ok: bool) -> float:
    if not ok or not math.isfinite(value):
        raise ValueError(f"{type(owner).__name__}: {argument} must be {allowed}; got {value!r}")
    return float(value)


@BOX_LOSS_REGISTRY.register()
class SmoothL1(nn.Module):
    """detectron2's box loss, fvcore's ``smooth_l1_loss`` (the default).

    Args:
        beta: residual at which the quadratic part ends; 0 is L1. In yacs, detectron2's SMOOTH_L1_BETA key sets it.
    """

    #: the argument that detectron2's own SMOOTH_L1_BETA key sets
    smooth_l1_beta_argument = "beta"

    def __init__(self, beta: float = 0.0):
        super().__init__()
        self.beta = _check(self, "beta", beta, "a number >= 0", beta >= 0)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Elementwise loss, of the shape of ``pred``; empty input gives an empty, graph-connected result."""
        return smooth_l1_loss(pred, target, self.beta, reduction="none")

    def extra_repr(self):
        return f"beta={self.beta}"
