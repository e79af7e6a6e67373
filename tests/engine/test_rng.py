"""Seeds of the training step."""

from types import SimpleNamespace

import pytest
import torch

from d2_balanced.engine.rng import ReseedEveryStep, resolve_seed, seed_step


def draws_at(iteration, seed=1):
    hook = ReseedEveryStep(seed)
    hook.trainer = SimpleNamespace(iter=iteration)
    hook.before_step()
    return torch.rand(4).tolist()


def test_draws_of_a_step_do_not_depend_on_what_came_before():
    first = draws_at(7)
    torch.rand(100)
    assert draws_at(7) == first


def test_steps_seeds_and_processes_draw_differently():
    draws = [draws_at(iteration, seed) for iteration in range(5) for seed in range(3)]
    for rank in (1, 2):
        seed_step(1, 7, rank)
        draws.append(torch.rand(4).tolist())
    assert len({tuple(d) for d in draws}) == len(draws)


def test_resolve_seed():
    assert resolve_seed(0) == 0 and resolve_seed(12) == 12
    drawn = {resolve_seed(-1) for _ in range(4)}
    assert len(drawn) == 4 and all(0 <= seed < 2**31 for seed in drawn)  # equal by chance: once in 10^9 runs
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        ReseedEveryStep(-1)
