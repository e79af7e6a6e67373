"""The losses of one training step: of a batch cut into parts, averaged over processes, with one wait for the device."""

from __future__ import annotations

from typing import Dict, List, Tuple

import torch
import torch.distributed as dist
from detectron2.utils import comm

__all__ = ["fetch_losses", "split_batch"]


def fetch_losses(losses: Dict[str, torch.Tensor], flag: bool) -> Tuple[Dict[str, float], bool]:
    """Mean over processes of each loss (0-d tensors), and whether any process raised ``flag``.

    One reduction and one copy to the host for everything. A NaN on one process is a NaN on all, so all of them stop.
    """
    values = [loss.detach().float() for loss in losses.values()]
    packed = torch.stack(values + [torch.full_like(values[0], float(flag))])
    if comm.get_world_size() > 1:
        dist.all_reduce(packed)
        packed = packed / comm.get_world_size()
    *means, flagged = packed.tolist()
    return dict(zip(losses, means)), flagged > 0


def split_batch(batch: List[dict], parts: int) -> List[List[dict]]:
    """``batch`` (one dict an image) cut into ``parts`` micro-batches of equal size, in order.

    Equal sizes make the mean of their losses the loss of the batch. Raises ``ValueError`` if they cannot be equal.
    """
    size, rest = divmod(len(batch), parts)
    if rest or not size:
        raise ValueError(
            f"BalancedTrainer: accumulate must divide the images that a process gets in one step: "
            f"accumulate is {parts}, this batch has {len(batch)} images."
        )
    return [batch[k * size : (k + 1) * size] for k in range(parts)]
