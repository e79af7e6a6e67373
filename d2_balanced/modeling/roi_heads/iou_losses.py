"""Losses of the IoU branch, and the weights of the IoU intervals (IoU-Uniform R-CNN, eq. 2).

Shape shorthand: S: generated boxes of the batch.
"""

from collections.abc import Sequence

import torch
from fvcore.nn import smooth_l1_loss

from ...utils.numbers import Range

__all__ = ["INTERVAL_WEIGHTS", "interval_weights_of", "weights_by_iou", "weighted_box_loss", "iou_loss"]

INTERVAL_WEIGHTS = {"none": (1.0,) * 5, "paper": (1.0, 1.5, 3.0, 3.0, 3.0), "released": (1.0, 1.5, 2.0, 3.0, 3.0)}
"""Regression weights of the IoU intervals (.5, .6], (.6, .7], .. (.9, 1]: none, the paper's (sec. 4.1), the code's."""


def interval_weights_of(weights):
    """Tensor (5,) of a name in ``INTERVAL_WEIGHTS``, five numbers or ``None`` (the paper's); else ``ValueError``."""
    weights = "paper" if weights is None else weights
    values = INTERVAL_WEIGHTS.get(weights, ()) if isinstance(weights, str) else weights
    if not isinstance(values, Sequence) or len(values) != 5 or not all(map(Range(at_least=0).holds, values)):
        raise ValueError(
            f"IoUBranch: interval_weights must be one of {sorted(INTERVAL_WEIGHTS)} or five numbers >= 0, "
            f"got {weights!r}"
        )
    return torch.tensor(tuple(map(float, values)))


def weights_by_iou(ious, weights):
    """The weight (S,) of the interval that each IoU (S,) is in; ``weights`` (5,) as in ``INTERVAL_WEIGHTS``."""
    # The released code's edges: an IoU on an edge, within 1e-5, belongs to the interval below.
    edges = torch.tensor([0.6, 0.7, 0.8, 0.9], device=ious.device)
    return weights[torch.bucketize(ious - 1e-5, edges, right=True)]


def weighted_box_loss(pred, target, weights):
    """Mean over all 4 S elements of the weighted SmoothL1 loss, beta 1 (Eq. 2); 0 for empty input."""
    loss = weights[:, None] * smooth_l1_loss(pred, target, beta=1.0, reduction="none")
    return loss.sum() / max(loss.numel(), 1)


def iou_loss(pred, ious):
    """Mean SmoothL1 loss, beta 0.5, of predicted IoUs (S,); 0 for empty input."""
    return smooth_l1_loss(pred, ious, beta=0.5, reduction="sum") / max(pred.numel(), 1)
