"""Random draws that stay on the tensors' device: fixed output sizes, no host-device synchronisation."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

_KEYS = 2**29  # random keys among equals; three times as many fit into an int32

__all__ = ["draw_at_random", "draw_preferred"]


def draw_at_random(candidates: Tensor, num: int) -> Tensor:
    """A uniformly random subset of ``num`` of the ``candidates`` (P,), in random order; all of them if P <= num.

    Uses torch's generator as detectron2's ``subsample_labels`` does: one ``randperm`` over the candidates.
    """
    return candidates.index_select(0, torch.randperm(candidates.numel(), device=candidates.device)[:num])


def draw_preferred(candidates: Tensor, num: int, first: Tensor, last: Optional[Tensor] = None) -> Tensor:
    """``num`` <= P of the ``candidates`` (P,): at random those of the mask ``first`` (P,), then the others, and those of
    the mask ``last`` if no others are left. The order of the result means nothing.
    """
    keys = torch.randint(_KEYS, candidates.shape, dtype=torch.int32, device=candidates.device)
    keys.add_(first, alpha=_KEYS)
    if last is not None:
        keys.add_(last, alpha=-_KEYS)
    return candidates.index_select(0, keys.topk(num, sorted=False).indices)
