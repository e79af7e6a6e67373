"""Counts for the log that lie on the device: a training pass brings all of its counts to the host in one transfer."""

from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Callable, List, NamedTuple

import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor

__all__ = ["counts_in_one_transfer", "log_counts"]


class _Waiting(NamedTuple):
    counts: Tensor
    write: Callable[..., None]
    storage: EventStorage
    scope: str


_passes: List[List[_Waiting]] = []  # what waits in the passes that are under way, the innermost last


def log_counts(counts: Tensor, write: Callable[..., None]) -> None:
    """Call ``write(storage, *numbers)`` with these counts (n,) int64 and the storage of now, in its name scope of now.

    That is done at the end of the :func:`counts_in_one_transfer` around it. Without one it is done at once, and the host
    waits for the device.
    """
    storage = get_event_storage()
    waiting = _Waiting(counts, write, storage, storage._current_prefix)  # nothing public tells the scope
    if _passes:
        _passes[-1].append(waiting)
    else:
        _write_all([waiting])


@contextmanager
def counts_in_one_transfer():
    """A training pass, whose counts are written together at its end; if it fails, none is."""
    _passes.append([])
    try:
        yield
        _write_all(_passes[-1])
    finally:
        _passes.pop()


def _write_all(waiting: List[_Waiting]) -> None:
    if not waiting:
        return
    numbers = iter(torch.cat([each.counts for each in waiting]).tolist())
    for counts, write, storage, scope in waiting:
        is_of_now = scope == storage._current_prefix
        with nullcontext() if is_of_now else storage.name_scope(scope):
            write(storage, *islice(numbers, len(counts)))
