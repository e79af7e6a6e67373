"""A model, a loader and a trainer that take milliseconds, for tests of the loop and its hooks."""

import torch
from d2_balanced.engine.hooks import LearningRate
from d2_balanced.engine.rng import ReseedEveryStep
from d2_balanced.engine.trainer import BalancedTrainer


class ToyModel(torch.nn.Module):
    """Two losses of a linear model with a random mask, as a detector has: {"loss_a", "loss_b"}."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(4, generator=generator))

    def forward(self, images):
        x = torch.stack([image["x"] for image in images])
        mask = torch.rand(len(images)) < 0.8
        error = (x @ self.weight - 1) * mask
        return {"loss_a": (error**2).mean(), "loss_b": 0.1 * error.abs().mean()}


class ToyLoader:
    """Batch ``i`` is a function of ``i``; images have a file name and an id, as a data set's."""

    def __init__(self, batch_size=4, poison=None):
        self.batch_size = batch_size
        self.poison = poison

    def iter_from(self, index):
        while True:
            generator = torch.Generator().manual_seed(index)
            x = torch.randn(self.batch_size, 4, generator=generator)
            if index == self.poison:
                x[1, 2] = float("nan")
            names = [{"file_name": f"image_{index}_{k}.png", "image_id": 100 * index + k} for k in range(len(x))]
            yield [{"x": row, **name} for row, name in zip(x, names)]
            index += 1


def toy_trainer(hooks=(), model=None, loader=None, lr=0.1, schedule=None, **kwargs):
    """A trainer with seeding, momentum SGD, a decaying learning rate, and ``hooks`` after them."""
    model = model or ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    trainer = BalancedTrainer(model, loader or ToyLoader(), optimizer, scheduler, **kwargs)
    trainer.register_hooks([ReseedEveryStep(0), *hooks, LearningRate()])
    return trainer
