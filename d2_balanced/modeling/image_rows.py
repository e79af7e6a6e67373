"""Rows of several images in one tensor, image after image: which of them are selected, at one wait for the device.

On a GPU the host waits for the device whenever the size of a result depends on values. Here the sizes of all images are
fetched together.

Shape shorthand: B: images; Ni: rows of image i; N: rows of all images; S: selected ones.
"""

from itertools import accumulate
from typing import List, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["count_selected", "first_rows", "repeat", "selected_by_image", "selected_rows", "to_device"]


def to_device(numbers: Sequence, like: Tensor, dtype=torch.int64) -> Tensor:
    """Numbers of the host as a tensor on the device of ``like``, without waiting for it."""
    return torch.tensor(numbers, dtype=dtype).to(like.device, non_blocking=True)


def first_rows(sizes: Sequence[int]) -> List[int]:
    """The first row of every image, of so many rows each."""
    return [0, *accumulate(sizes)][:-1]


def repeat(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """(N, ...): the value of every image, from (B, ...), for each of its rows."""
    return torch.cat([value.expand(size, *value.shape) for value, size in zip(values, sizes)]) if sizes else values


def count_selected(selected: Tensor, sizes: Sequence[int]) -> Tuple[Tensor, List[int]]:
    """How many rows are selected before each of the N rows and after the last, (N + 1,), and how many of every image;
    the latter come to the host in one transfer.

    Args:
        selected: (N,) bool; or int64, how often each row is selected.
        sizes: Ni of every image.
    """
    before = F.pad(selected.cumsum(0), (1, 0))
    ends = before[to_device([0, *accumulate(sizes)], before)].tolist()
    return before, [end - start for start, end in zip(ends, ends[1:])]


def selected_rows(selected: Tensor, sizes: Sequence[int]) -> Tuple[Tensor, List[int]]:
    """What ``nonzero`` gives, and how many rows of every image are among them: (S,) int64 ascending, and B numbers.

    Arguments as for :func:`count_selected`.
    """
    return _taken(torch.arange(len(selected), device=selected.device), selected, sizes)


def selected_by_image(selected: Tensor, sizes: Sequence[int]) -> List[Tensor]:
    """The selected rows of every image, counted from its first row. Arguments as for :func:`count_selected`."""
    numbers = torch.arange(max(sizes, default=0), device=selected.device)
    rows, counts = _taken(torch.cat([numbers[:0], *(numbers[:size] for size in sizes)]), selected, sizes)
    return list(rows.split(counts))


def _taken(values: Tensor, selected: Tensor, sizes: Sequence[int]) -> Tuple[Tensor, List[int]]:
    """The values (S,), of (N,), of the selected rows, and how many of every image are among them."""
    before, counts = count_selected(selected, sizes)
    # Every selected one goes to its place, counted from 1; what is not selected goes to place 0, which is cut off.
    place = before[1:].mul_(selected)
    return values.new_empty(sum(counts) + 1).scatter_(0, place, values)[1:], counts
