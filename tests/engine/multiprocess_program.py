"""Run by test_multiprocess.py, alone or under torchrun; what it writes goes to a folder.

``gradients``: of one batch of four images. ``train``: a run with a checkpoint in the middle. ``resume``: that run again,
from the checkpoint in its middle.
"""

import contextlib
import os
import shutil
import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from d2_balanced.engine import run
from d2_balanced.train import argument_parser
from d2_balanced.engine.distributed import launch, wrap_ddp

MIDDLE = "model_0000002.pth"


def load(folder, settings, *more):
    return run.load_experiment(argument_parser().parse_args([*more, "--output-dir", folder, *settings]))


@contextlib.contextmanager
def fixed_sampling():
    """Sampling takes the first candidates, whoever draws."""
    randperm, torch.randperm = torch.randperm, lambda n, **kwargs: torch.arange(n, device=kwargs.get("device"))
    yield
    torch.randperm = randperm


def gradients(folder, settings):
    """{parameter: mean gradient over all processes} of one batch, with fixed sampling and no batch statistics."""
    experiment = load(folder, settings + ["MODEL.RESNETS.NORM", "FrozenBN"])
    torch.manual_seed(0)
    model = experiment.build_model()
    images = next(experiment.build_loader().iter_from(3))
    wrapped = wrap_ddp(model)
    with fixed_sampling(), EventStorage():
        sum(wrapped(images).values()).backward()
    if comm.is_main_process():
        torch.save({k: p.grad for k, p in model.named_parameters() if p.grad is not None}, f"{folder}/gradients.pth")


def train(folder, settings, *more):
    experiment = load(folder, settings, *more)
    run.train(run.prepare(experiment, resume="--resume" in more), experiment)


def resume(folder, settings):
    """Continue in <folder>/resumed from the middle of the run in <folder>."""
    resumed = os.path.join(folder, "resumed")
    if comm.is_main_process():
        os.makedirs(resumed)
        shutil.copy(os.path.join(folder, MIDDLE), resumed)
    comm.synchronize()
    train(resumed, settings, "--resume")


def main(tasks, folder, settings):
    for task in tasks.split(","):
        {"gradients": gradients, "train": train, "resume": resume}[task](folder, settings)
        comm.synchronize()


if __name__ == "__main__":
    launch(main, (sys.argv[1], sys.argv[2], sys.argv[3:]))
