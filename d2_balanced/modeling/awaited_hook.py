"""Parts of a model that do nothing in training unless a hook of the trainer does its share, and how they say so."""

from __future__ import annotations

import logging
from typing import Iterator

import torch
from torch import nn

__all__ = ["AwaitedHook", "hook_at_work", "warn_without_end_iteration"]

logger = logging.getLogger(__name__)

_REGISTER = (
    "d2_balanced's trainer has this hook; in a trainer of your own register it before training, as one of "
    "d2_balanced.balanced_hooks(cfg) (docs/LIBRARY.md)."
)


class AwaitedHook:
    """A hook that is waited for. A module has it as ``_awaited_hook`` and calls :meth:`check` in training passes.

    Args:
        name: class name of the hook, which tells that it is at work by :func:`hook_at_work`.
        consequence: what happens without it, as a clause.
        otherwise: what a loop without hooks has to do in its place, as a sentence.
    """

    def __init__(self, name: str, consequence: str, otherwise: str = ""):
        self.name = name
        self.message = f"{consequence}: no {name} hook is at work. {_REGISTER} {otherwise}".rstrip()
        self.at_work = False
        self._told = False

    def check(self) -> None:
        """Warn, once, if the hook is not at work in a pass that trains (gradients switched on)."""
        if not (self.at_work or self._told) and torch.is_grad_enabled():
            self._told = True
            logger.warning(self.message)


def warn_without_end_iteration(owner: str) -> AwaitedHook:
    """What a component waits for that adapts in ``end_iteration``; ``owner``: its class name."""
    return AwaitedHook(
        "EndIteration",
        f"{owner} adapts after every optimizer step, but nobody tells it of them, so it stays as it is",
        "(A loop without hooks calls end_iteration(i) of the model's modules after every step; if yours does, all is "
        "well.)",
    )


def hook_at_work(model: nn.Module, name: str, at_work: bool = True) -> None:
    """Tell all parts of ``model`` that wait for the hook ``name`` that it is at work, or no longer."""
    for awaited in _awaited(model):
        if awaited.name == name:
            awaited.at_work = at_work


def _awaited(model: nn.Module) -> Iterator[AwaitedHook]:
    return (module._awaited_hook for module in model.modules() if hasattr(module, "_awaited_hook"))
