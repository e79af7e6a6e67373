"""Rows of several images in one tensor, one image after the other: which of them are selected, at one wait for the device.

On a GPU the host waits for the device whenever the size of a result depends on values. Here the sizes of all images are
fetched together.

Shape shorthand: B: images; Ni: rows of image i; N: rows of all images; S: selected ones.
"""

from itertools import accumulate
from typing import List, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["first_rows", "selected_by_image", "selected_rows", "to_device"]


def to_device(numbers: Sequence, like: Tensor, dtype=torch.int64) -> Tensor:
    """Numbers of the host as a tensor on the device of ``like``, without waiting for it."""
    return torch.tensor(numbers, dtype=dtype).to(like.device, non_blocking=True)


def first_rows(sizes: Sequence[int]) -> List[int]:
    """The first row of every image, of so many rows each."""
    return [0, *accumulate(sizes)][:-1]


def selected_rows(selected: Tensor, sizes: Sequence[int]) -> Tuple[Tensor, List[int]]:
    """What ``nonzero`` gives, and how many rows of every image are among them: (S,) int64 ascending, and B numbers.

    Args:
        selected: (N,) bool.
        sizes: Ni of every image.
    """
    place = F.pad(selected.cumsum(0), (1, 0))  # place[n]: how many of the first n rows are selected
    ends = place[to_device([0, *accumulate(sizes)], place)].tolist()
    # Every selected row goes to its place; what is not selected goes to one more, which is cut off.
    target = place[1:].sub(1).masked_fill_(~selected, ends[-1])
    rows = target.new_empty(ends[-1] + 1).scatter_(0, target, torch.arange(len(selected), device=selected.device))
    return rows[:-1], [end - start for start, end in zip(ends, ends[1:])]


def selected_by_image(selected: Tensor, sizes: Sequence[int]) -> List[Tensor]:
    """The selected rows of every image, counted from its first row. Arguments as for :func:`selected_rows`."""
    rows, counts = selected_rows(selected, sizes)
    first = to_device(first_rows(sizes), rows).unbind()
    first_of_selected = torch.cat([f.expand(count) for f, count in zip(first, counts)]) if counts else rows
    return list((rows - first_of_selected).split(counts))
