"""KL loss: boxes whose variance is predicted, too."""

from __future__ import annotations

from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from ..arguments import check_range
from ..registry import BOX_LOSS_REGISTRY

__all__ = ["KLLoss"]

COORDINATES = ("corners", "deltas")


@BOX_LOSS_REGISTRY.register()
class KLLoss(nn.Module):
    """KL loss (He et al., Bounding Box Regression with Uncertainty for Accurate Object Detection, CVPR 2019, on the
    KL loss; "Softer-NMS").

    Each coordinate is a Gaussian, whose ``alpha = ln(variance)`` another linear layer of the predictor gives:
    ``exp(-alpha) SmoothL1(error) + alpha / 2``, SmoothL1 with beta 1. Where alpha is 0 this is SmoothL1.

    Args:
        coordinates: "corners", those of the box, as offsets from the proposal's in units of its size (the
            paper's) times the box weights of x and y; or "deltas", detectron2's own.

    Raises:
        ValueError: for other coordinates.
    """

    #: the loss is also given log variances (F, 4); the predictor gets a layer for them
    wants_log_variances = True

    def __init__(self, coordinates: str = "corners"):
        super().__init__()
        check_range(self, "coordinates", coordinates, f"one of {list(COORDINATES)}", coordinates in COORDINATES)
        self.sees = coordinates

    def forward(self, pred: Tensor, target: Tensor, log_variances: Tensor) -> Tensor:
        """Losses (F, 4), which may be negative; empty input gives an empty, graph-connected result."""
        log_variances = log_variances.to(pred.dtype)
        return (-log_variances).exp() * smooth_l1_loss(pred, target, beta=1.0) + 0.5 * log_variances

    def extra_repr(self):
        return f"coordinates={self.sees!r}"
