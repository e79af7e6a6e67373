"""The model's randomness: seeded anew at every step, so that nothing that happens in between can change it."""

import random

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..data.seeding import derive_seed

__all__ = ["resolve_seed", "seed_step", "ReseedEveryStep"]


def resolve_seed(seed):
    """The run's seed, equal in all processes: ``seed``, or a random one if it is negative (detectron2's ``SEED: -1``).

    The caller stores the result (log, checkpoint): a resumed run must use the same one. All processes must call this.
    """
    if seed >= 0:
        return int(seed)
    return comm.all_gather(random.SystemRandom().randrange(2**31))[0]


def seed_step(seed, iteration, rank=0):
    """Seed torch's CPU generator, and the current CUDA device's if CUDA is in use, from (seed, iteration, rank)."""
    step_seed = derive_seed("step", seed, iteration, rank)
    # torch.manual_seed does the same a hundred times slower: it looks for every kind of device
    torch.default_generator.manual_seed(step_seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(step_seed)


class ReseedEveryStep(HookBase):
    """Seeds the generators before every step from (seed, iteration, rank); put it first in the list of hooks.

    Sampling and dropout of iteration i are then the same in a run that was stopped, evaluated or resumed before i.

    Args:
        seed: integer of at least 0, see :func:`resolve_seed`.
    """

    def __init__(self, seed):
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"ReseedEveryStep: seed must be an integer of at least 0, got {seed!r}")
        self.seed = seed

    def before_step(self):
        seed_step(self.seed, self.trainer.iter, comm.get_rank())
