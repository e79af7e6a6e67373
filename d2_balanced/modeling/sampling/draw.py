"""Random draws that stay on the tensors' device: fixed output sizes, no host-device synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor

_KEYS = 2**29  # random keys of one preference; three preferences fit into an int32

__all__ = ["draw_at_random", "draw_preferred"]


def draw_at_random(candidates: Tensor, num: int) -> Tensor:
    """A uniformly random subset of ``num`` of the ``candidates`` (P,), in random order; all of them if P <= num.

    Uses torch's generator as detectron2's ``subsample_labels`` does: one ``randperm`` over the candidates.
    """
    return candidates[torch.randperm(candidates.numel(), device=candidates.device)[:num]]


def draw_preferred(candidates: Tensor, preference: Tensor, num: int) -> Tensor:
    """``num`` <= P of the ``candidates`` (P,), those of the highest ``preference`` (P,) first, at random among equals.

    ``preference`` holds booleans or the integers 0, 1, 2. The order of the result means nothing.
    """
    keys = torch.randint(_KEYS, preference.shape, dtype=torch.int32, device=preference.device)
    keys.add_(preference, alpha=_KEYS)
    return candidates.index_select(0, keys.topk(num, sorted=False).indices)
