"""A detector of five layers for gradient annealing; as a program, one process of several: RANK WORLD_SIZE FOLDER."""

import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import torch
from torch import nn

from d2_balanced.engine.distributed import wrap_ddp
from d2_balanced.engine.gradient_annealing import GradientAnnealing
from d2_balanced.engine.trainer import BalancedTrainer


class Detector(nn.Module):
    """Two shared and three R-CNN layers, with the parameter names of a detector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3, 4)
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = nn.Linear(4, 4)
        self.roi_heads.box_predictor = nn.Linear(4, 2)
        self.roi_heads.mask_head = nn.Linear(4, 2)

    def forward(self, batch):
        shared = torch.relu(self.backbone(torch.stack(batch)))
        boxes = self.roi_heads.box_predictor(torch.tanh(self.roi_heads.box_head(shared)))
        return {"loss_box": boxes.square().mean(), "loss_mask": self.roi_heads.mask_head(shared).square().mean()}


def data(num=8):
    """Batches of four rows of three numbers."""
    generator = torch.Generator().manual_seed(1)
    return [list(torch.randn(4, 3, generator=generator)) for _ in range(num)]


def train_share(rank, world_size, initial, iterations=3):
    """Train on every ``world_size``-th row of the batches; returns the first step's gradients and the final weights."""
    model = Detector()
    wrapped = wrap_ddp(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    trainer = BalancedTrainer(wrapped, [batch[rank::world_size] for batch in data()], optimizer)
    trainer.register_hooks([GradientAnnealing(wrapped, initial=initial)])
    gradients, step = [], optimizer.step

    def recorded_step(*args):
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        step(*args)

    optimizer.step = recorded_step
    trainer.train(0, iterations)
    return {"gradients": gradients[0], "weights": model.state_dict()}


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    runs = {name: train_share(rank, world_size, initial) for name, initial in (("plain", 1.0), ("annealed", 7.0))}
    torch.save(runs, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()
