"""Run by test_distributed.py under torchrun: writes what each process sees to <folder>/<rank>.json."""

import json
import os
import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import torch
from detectron2.utils import comm
from torch import nn

from d2_balanced.data.loader import build_train_loader
from d2_balanced.engine import distributed
from d2_balanced.engine.rng import resolve_seed, seed_step
from d2_balanced.utils.reductions import gather_over_processes, reduce_sum


class Model(nn.Module):
    """One used and one unused weight, and buffers of several types."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(1, 1), nn.Linear(1, 1)
        self.register_buffer("flags", torch.tensor([True, False]) ^ bool(comm.get_rank()))
        self.register_buffer("mean", torch.full((2, 1), float(comm.get_rank())))
        self.register_buffer("count", torch.tensor(5 + comm.get_rank()))
        self.register_buffer("none", torch.zeros(0))

    def forward(self, x):
        return self.used(x).sum()


def gradients():
    """The same mean gradient in all processes, of inputs that differ."""
    torch.manual_seed(0)
    model = Model()
    del model.flags  # DDP sends all buffers once, and torch 2.0's gloo cannot send bool
    model = distributed.wrap_ddp(model)
    model(torch.full((1, 1), 2.0 + 2 * comm.get_rank())).backward()
    return model.module.used.weight.grad.item(), model.module.unused.weight.grad is None


def buffers():
    model = Model()
    distributed.broadcast_buffers(model)
    return {name: tensor.tolist() for name, tensor in model.named_buffers()}


def draws():
    seed_step(1, 2, comm.get_rank())
    return torch.rand(2).tolist()


def main(folder):
    rank = comm.get_rank()
    images = [{"image_id": i} for i in range(8)]
    loader = build_train_loader(
        dataset=images, mapper=lambda d: d, total_batch_size=4, seed=0, aspect_ratio_grouping=False, num_workers=rank
    )
    report = {
        "place": [rank, comm.get_world_size(), comm.get_local_rank(), comm.get_local_size()],
        "sum": reduce_sum(torch.tensor([1, 10 * rank])).tolist(),
        "gathered": gather_over_processes(torch.tensor([10.0 * rank, 1.0])).tolist(),
        "objects": comm.all_gather({"rank": rank}),
        "images": [image["image_id"] for image in next(iter(loader))],
        "seed": resolve_seed(-1),
        "gradients": gradients(),
        "buffers": buffers(),
        "draws": draws(),
    }
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump(report, file)


def fail_in_one_process(folder):
    if comm.get_rank() == 1:
        raise ArithmeticError("on purpose")
    reduce_sum(torch.zeros(1))  # waits for the other process


if __name__ == "__main__":
    distributed.launch({"main": main, "fail": fail_in_one_process}[sys.argv[1]], (sys.argv[2],))
