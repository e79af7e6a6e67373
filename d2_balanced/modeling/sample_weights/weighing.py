"""What components that weigh samples have in common. Nothing here waits for the device.

Shape shorthand: R: RoIs of a minibatch.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

__all__ = ["power_above", "with_sum_kept"]


def power_above(values: Tensor, bias: float, exponent: float) -> Tensor:
    """``((1 - bias) v + bias) ^ exponent``, a weight that grows with v in [0, 1] (Cao et al. 2020)."""
    return ((1 - bias) * values + bias) ** exponent


def with_sum_kept(weights: Tensor, losses: Tensor, rows: Tensor, others: Optional[Tensor] = None) -> Tensor:
    """Weights (R,), scaled so that the losses of some rows have the sum that they have without weights.

    Args:
        weights: (R,), at least 0.
        losses: (R,); no gradient flows into them. Of losses below 0 (``KLLoss``) the sizes are summed: a sum near 0 is
            no scale, and one below it would turn the gradients round.
        rows: (R,) bool, those that are scaled.
        others: (R,) weights of the other rows; None: 1.

    Weights that are all 0 where the losses are become 1.
    """
    before = losses.detach().abs() * rows
    wanted, have = before.sum(), (weights * before).sum()
    scaled = torch.where(have > 0, weights * (wanted / have), torch.ones_like(weights))
    return torch.where(rows, scaled, torch.ones_like(weights) if others is None else others)
