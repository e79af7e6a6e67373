"""Run by test_trainer_processes.py under torchrun: the toy trainer in several processes; each writes what it saw."""

import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import torch
from d2_balanced.engine.distributed import launch, wrap_ddp
from d2_balanced.engine.nonfinite import NonFiniteLossError
from detectron2.engine import HookBase
from detectron2.utils import comm
from engine_toys import ToyLoader, ToyModel, toy_trainer


class NoMask(ToyModel):
    """Without random numbers."""

    def forward(self, images):
        error = torch.stack([image["x"] for image in images]) @ self.weight - 1
        return {"loss": (error**2).mean()}


class Share(ToyLoader):
    """This process's images of each batch."""

    def iter_from(self, index):
        for batch in super().iter_from(index):
            yield batch[comm.get_rank() :: comm.get_world_size()]


class StopOne(HookBase):
    """Only the second process asks for a stop, before iteration 3."""

    def before_step(self):
        if comm.get_rank() == 1 and self.trainer.iter == 3:
            self.trainer.request_stop("SIGTERM")


def main(folder):
    found = {}
    trainer = toy_trainer(model=NoMask(), loader=Share(8), accumulate=2)
    trainer.model = wrap_ddp(trainer.model)
    trainer.train(0, 5)
    found["weight"] = trainer.model.module.weight.detach()
    found["losses"] = [value for value, _ in trainer.storage.history("total_loss").values()]

    stopped = toy_trainer([StopOne()], model=NoMask(), loader=Share(8))
    stopped.train(0, 10)
    found["stopped"] = [stopped.last_finished_iter, stopped.stop_reason]

    try:
        toy_trainer(model=NoMask(), loader=Share(8, poison=2)).train(0, 5)  # one image, of the second process
    except NonFiniteLossError as error:
        found["failed"] = [error.details["iteration"], error.details["images"][0]]
    torch.save(found, f"{folder}/{comm.get_rank()}.pth")


if __name__ == "__main__":
    launch(main, (sys.argv[1],))
