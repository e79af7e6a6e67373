"""What a finished run costs on this machine: images a second, and time and memory of a training step.

    python -m d2_balanced.tables.speed FOLDER [--weights FILE]

Measures the run in FOLDER, alone in a process of its own, and writes FOLDER/speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import islice
from statistics import median
from typing import Dict, List, Optional, Sequence

import torch
from detectron2.engine import HookBase

from ..engine.experiment import Experiment
from ..engine.hooks import EndIteration
from ..engine.open import open_checkpoint, open_run
from ..engine.precision import build_precision
from ..engine.trainer import BalancedTrainer
from ..utils.atomic import atomic_write
from ..utils.command import called, command
from ..utils.errors import ConfigError
from ..utils.memory import peak_resident

__all__ = ["SPEED_FILE", "main", "measure_speed"]

SPEED_FILE = "speed.json"
_IMAGES, _STEPS, _WARM_UP = 20, 8, 2


def measure_speed(experiment: Experiment, weights: str, images: int = _IMAGES, steps: int = _STEPS) -> Dict[str, float]:
    """Costs of the experiment's model with these weights, in one process.

    Returns:
        ``FPS``: images a second of the first test set, one at a time and read before: 1 over the median time of
        ``images``. ``step_s``: median seconds of ``steps`` optimizer steps at the config's batch size, without loading.
        ``memory_GB``: most memory in these steps, in 2^30 bytes: on a GPU what its tensors took, on the CPU the whole
        process, with Python and its libraries.

    Raises ``ConfigError`` without a test set, and what :func:`open_checkpoint` does.
    """
    model = open_checkpoint(experiment, weights)
    if not experiment.test_datasets:
        raise ConfigError("There is no test set to measure the speed on: give DATASETS.TEST.")
    loader, _ = experiment.build_test(experiment.test_datasets[0])
    fps = 1.0 / median(_seconds_of_images(model.eval(), list(islice(loader, images + _WARM_UP)))[_WARM_UP:])
    seconds, memory = _steps(experiment, model, steps)
    return {"FPS": fps, "step_s": median(seconds[_WARM_UP:]), "memory_GB": memory / 2**30}


@torch.no_grad()
def _seconds_of_images(model, batches) -> List[float]:
    seconds = []
    for batch in batches:
        start = _now()
        model(batch)
        seconds.append(_now() - start)
    return seconds


def _steps(experiment: Experiment, model, steps: int):
    """Seconds of the steps, the first ones to warm up, and the most memory in bytes."""
    batches = list(islice(iter(experiment.build_loader()), steps + _WARM_UP))
    settings, optimizer = experiment.settings, experiment.build_optimizer(model)
    precision = build_precision(settings.amp, torch.device(settings.device))
    scheduler = experiment.build_scheduler(optimizer)
    trainer = BalancedTrainer(model, batches, optimizer, scheduler, accumulate=settings.accumulate, precision=precision)
    clock = _Clock()
    trainer.register_hooks([clock, *experiment.build_method_hooks(model), EndIteration(model, len(batches))])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train(0, len(batches))
    on_gpu = torch.device(settings.device).type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident()
    return clock.seconds, peak


class _Clock(HookBase):
    """Seconds of every step; the first hook, so that the others' work on gradients is in it."""

    def __init__(self):
        self.seconds: List[float] = []

    def before_step(self):
        self._start = _now()

    def after_step(self):
        self.seconds.append(_now() - self._start)


def _now() -> float:
    """The time when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@command("python -m d2_balanced.tables.speed")
def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; returns the exit status."""
    name = called("python -m d2_balanced.tables.speed")
    parser = argparse.ArgumentParser(prog=name, description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of a finished run")
    parser.add_argument("--weights", default="", metavar="FILE", help="default: the run's last checkpoint")
    args = parser.parse_args(argv)
    experiment = open_run(args.folder)
    found = measure_speed(experiment, args.weights)
    on_gpu = torch.device(experiment.settings.device).type == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    with atomic_write(os.path.join(args.folder, SPEED_FILE), "w") as file:
        json.dump({**found, "device": device, "torch": torch.__version__}, file)
    print(json.dumps({**found, "device": device}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
