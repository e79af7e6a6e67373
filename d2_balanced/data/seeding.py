"""Seeds that are pure functions of integers, and a block of code that runs under one of them."""

import contextlib
import hashlib
import random

import numpy as np
import torch

__all__ = ["derive_seed", "seeded"]


def derive_seed(*parts):
    """A well-mixed 63-bit seed that depends on the given integers (or strings) alone.

    The same on every machine and Python version, so that a resumed run sees the same draws.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def seeded(seed):
    """Run a block with Python's, NumPy's and torch's CPU generator seeded from ``seed``; their states come back after.

    Used around the data mapper: what an augmentation draws does not depend on which process runs it, nor does the
    caller's own randomness depend on the augmentations. About 0.1 ms.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
