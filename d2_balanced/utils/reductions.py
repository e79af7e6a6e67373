"""Sums and tables over all processes, for statistics: no gradient flows through them."""

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

__all__ = ["gather_over_processes", "message_device", "reduce_sum"]


@torch.no_grad()
def reduce_sum(tensor):
    """Sum of ``tensor`` over all processes, a new tensor, bitwise equal in all of them; for statistics, no gradient.

    In a single process a detached copy. All processes must call it, with the same shape and type.
    """
    total = tensor.detach().clone().to(message_device(tensor))
    if comm.get_world_size() > 1:
        dist.all_reduce(total)
    return total.to(tensor.device)


def gather_over_processes(values: Tensor) -> Tensor:
    """(V,) -> (P, V), the same on every process; a collective call without a host-device sync."""
    processes = comm.get_world_size()
    table = values.new_zeros(processes, len(values))
    table[comm.get_rank()] = values
    if processes > 1:
        dist.all_reduce(table)  # a sum with zeros: exact, and on every backend
    return table


def message_device(tensor):
    """Where the process group can take a tensor from: NCCL cannot read CPU memory."""
    if comm.get_world_size() > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return tensor.device
