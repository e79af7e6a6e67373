"""The losses of one training step: averaged over processes, checked, logged, with a single wait for the device."""

from __future__ import annotations

import math
from typing import Dict, List, Tuple

import torch
import torch.distributed as dist
from detectron2.utils import comm

__all__ = ["NonFiniteLossError", "fetch_losses", "split_batch"]


class NonFiniteLossError(FloatingPointError):
    """A loss, or what leads to one, became infinite or NaN; ``details`` (plain Python) says when, and on which images.

    Raised on every process, before the optimizer step, so the weights are still those of the iteration before.
    """

    def __init__(self, details: dict):
        self.details = details
        losses = "\n".join(f"    {name} = {value}" for name, value in details["losses"].items()) or "    (none yet)"
        images = "\n".join(f"    {image}" for image in details["images"]) or "    (none known)"
        super().__init__(
            f"{details['reason'].rstrip('!. ')}: iteration {details['iteration']}, learning rate {details['lr']:.6g}.\n"
            f"  losses (mean over processes):\n{losses}\n"
            f"  images of this process, process {details['process']}:\n{images}\n"
            f"  total loss of the iteration before: {details['last_total_loss']}\n"
            "Weights were not stepped, and no checkpoint is written after this. Usual causes: a learning rate too high "
            "for this batch size (--auto-scale-lr scales it), no warm-up or gradient clipping, wrong boxes in the data."
        )


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


def all_finite(losses: Dict[str, float]) -> bool:
    """Whether no loss is infinite or NaN."""
    return all(math.isfinite(value) for value in losses.values())


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
