"""Run by test_two_machines.py under two torchruns: the toy trainer with a run's checkpoints, until a signal comes."""

import os
import sys
import time

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.distributed import launch, wrap_ddp
from d2_balanced.engine.hooks import Checkpoints, StopOnSignal
from detectron2.engine import HookBase
from detectron2.utils import comm
from engine_toys import toy_trainer
from toy_processes_program import NoMask, Share

__all__ = ["NoMask", "checkpointer_of"]


class Wait(HookBase):
    """Tells of iteration 3, and takes its time from there on."""

    def __init__(self, folder):
        self.folder = folder

    def before_step(self):
        if self.trainer.iter == 3:
            open(os.path.join(self.folder, "at_3"), "w").close()
        if self.trainer.iter >= 3:
            time.sleep(0.02)


def checkpointer_of(trainer, folder):
    return BalancedCheckpointer(getattr(trainer.model, "module", trainer.model), str(folder), trainer=trainer)


def main(folder):
    trainer = toy_trainer([StopOnSignal()], model=NoMask(), loader=Share(8))
    checkpointer = checkpointer_of(trainer, folder)
    trainer.register_hooks([Checkpoints(checkpointer, 100_000), Wait(folder)])
    trainer.model = wrap_ddp(trainer.model)
    trainer.train(0, 100_000)
    open(os.path.join(folder, f"ended_{comm.get_rank()}_{trainer.stop_reason}"), "w").close()


if __name__ == "__main__":
    launch(main, (sys.argv[1],))
