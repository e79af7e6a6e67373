"""The small state beside weights and optimizer that an exact resume needs, as tensors and plain Python only."""

from __future__ import annotations

import logging
from typing import Collection, Dict, Optional

import torch
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..utils.errors import CheckpointError

__all__ = [
    "PLAIN_ATTRIBUTES",
    "describe_process",
    "gather_plain_attributes",
    "load_optimizer",
    "load_plain_attributes",
    "load_recent_scalars",
    "recent_scalars",
    "warn_if_other_process",
]

logger = logging.getLogger(__name__)

# Training state that detectron2 keeps in a plain attribute, so that a state dict misses it: the moving average that
# normalises the losses of RetinaNet and FCOS (`DenseDetector._ema_update`).
PLAIN_ATTRIBUTES = ("loss_normalizer",)

_WINDOW = 20  # the writers smooth over as many values


def load_optimizer(optimizer, scheduler, optimizer_state: dict, scheduler_state: dict) -> None:
    """Give optimizer and scheduler their saved state; settings that are others now stay as they were built.

    So a resume carries out a changed learning rate, momentum, weight decay or schedule, and is exact where nothing has
    changed.

    Args:
        optimizer, scheduler: built from the config of this run; the scheduler may be ``None``.
        optimizer_state, scheduler_state: their ``state_dict()`` of before.

    Raises ``CheckpointError`` if the saved state is of other parameters.
    """
    built = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(optimizer_state)
    except ValueError as error:
        raise CheckpointError(
            f"this run's optimizer trains other parameters than the checkpoint's ({error}); give the checkpoint as the "
            "initial weights (MODEL.WEIGHTS, train.init_checkpoint), without --resume."
        ) from error
    if scheduler is not None:
        scheduler.load_state_dict(scheduler_state)
        scheduler.base_lrs = [group["initial_lr"] for group in built]
    for group, settings in zip(optimizer.param_groups, built):
        group.update({key: value for key, value in settings.items() if key != "lr"})
    if isinstance(scheduler, LRMultiplier):
        # A function of the iteration alone: the same to the bit where the schedule is the same.
        for group, rate in zip(optimizer.param_groups, scheduler.get_lr()):
            group["lr"] = rate
    elif scheduler is None:
        for group, settings in zip(optimizer.param_groups, built):
            group["lr"] = settings["lr"]


def gather_plain_attributes(model: nn.Module) -> Dict[str, list]:
    """``{"module.attribute": [value on process 0, 1, ...]}``; all processes call it, each has a value of its own."""
    own = {
        f"{path}.{attribute}": float(vars(module)[attribute])
        for path, module in model.named_modules()
        for attribute in PLAIN_ATTRIBUTES
        if attribute in vars(module)
    }
    gathered = comm.all_gather(own) if comm.get_world_size() > 1 else [own]
    return {key: [values[key] for values in gathered] for key in own}


def load_plain_attributes(model: nn.Module, state: Dict[str, list]) -> None:
    """Set what :func:`gather_plain_attributes` gave; another number of processes than before gets the mean."""
    modules = dict(model.named_modules())
    for key, values in state.items():
        path, _, attribute = key.rpartition(".")
        if path not in modules:
            logger.warning("The checkpoint has a value for %s, which this model has not; it is left out.", key)
            continue
        same_world = len(values) == comm.get_world_size()
        setattr(modules[path], attribute, values[comm.get_rank()] if same_world else sum(values) / len(values))


def recent_scalars(storage: Optional[EventStorage], without: Collection[str] = ()) -> Dict[str, list]:
    """``{name: [smoothing_hint, [[iteration, value], ...]]}``: what the writers' moving medians look back on.

    ``without``: names that are left out.
    """
    if storage is None:
        return {}
    hints = storage.smoothing_hints()
    return {
        name: [hints[name], [[int(iteration), float(value)] for value, iteration in history.values()[-_WINDOW:]]]
        for name, history in storage.histories().items()
        if name not in without
    }


def load_recent_scalars(storage: EventStorage, state: Dict[str, list]) -> None:
    """Put what :func:`recent_scalars` gave into a new storage, so that a resumed log goes on as if never stopped."""
    resumed_at = storage.iter
    for name, (hint, history) in state.items():
        for iteration, value in history:
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=hint)
    storage.iter = resumed_at


def describe_process() -> Dict[str, object]:
    """What the rounding of a training step depends on, beside its numbers."""
    return {
        "threads": torch.get_num_threads(),
        "processes": comm.get_world_size(),
        "torch": str(torch.__version__),
        "cuda": torch.cuda.is_initialized(),
    }


def warn_if_other_process(saved: Dict[str, object]) -> None:
    """Warn where a resumed run cannot be bit-identical to one that was never stopped."""
    now = describe_process()
    changes = [f"{name} {saved[name]} -> {now[name]}" for name in now if saved.get(name, now[name]) != now[name]]
    if changes:
        logger.warning(
            "This run resumes in another environment (%s): it goes on correctly, but not bit for bit as it would have.",
            ", ".join(changes),
        )
