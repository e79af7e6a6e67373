"""How many samples each class has: given, or counted in training."""

from __future__ import annotations

from typing import List, Optional

import torch
from torch import Tensor, nn

from ..iteration_sums import IterationSums

__all__ = ["ClassCounts"]


class ClassCounts(nn.Module):
    """Counts (K,) of the classes' samples; those that training counts are state, equal on all processes.

    Args:
        owner: class name of the loss, for error messages.
        given: the objects of each class in the data set, all at least 1; None: the sampled positives are counted.

    Raises:
        ValueError: for counts below 1.
    """

    class_dims = {"values": 0}  # engine/class_weights.py

    def __init__(self, owner: str, given: Optional[List[float]]):
        super().__init__()
        if given is not None and not all(count >= 1 for count in given):
            raise ValueError(f"{owner}: class_counts must be numbers of at least 1, one a class; got {list(given)}")
        self.owner = owner
        self.given = None if given is None else [float(count) for count in given]
        self.values: Optional[Tensor] = None

    def adopt(self, num_classes: int) -> None:
        """Take over the number of classes. ``ValueError`` if there are not as many counts."""
        if self.given is not None and len(self.given) != num_classes:
            raise ValueError(
                f"{self.owner}: class_counts must have {num_classes} numbers, one a class; got {len(self.given)}"
            )
        start = torch.zeros(num_classes, dtype=torch.float64)
        del self.values
        self.register_buffer("values", start, persistent=self.given is None)
        if self.given is None:
            self.sums = IterationSums(self.owner, num_classes)
        else:
            self.values.copy_(torch.tensor(self.given, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The counts (K,), float64, those of the iterations before this one."""
        if self.values is None:
            raise RuntimeError(f"{self.owner}: the number of classes is not known; call adopt(num_classes)")
        return self.values

    def accumulate(self, labels: Tensor) -> None:
        """Count the labels (R,) in [0, K] of a forward pass, the background K aside."""
        if self.given is None:
            counts = self().new_zeros(len(self()) + 1)
            self.sums.add(counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))[:-1])

    def end_iteration(self, iteration: int) -> None:
        """Add what the iteration counted, on all processes; a collective call."""
        if self.given is None:
            self.values.add_(self.sums.take())
