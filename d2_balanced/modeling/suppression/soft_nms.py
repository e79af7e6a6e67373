"""Soft-NMS: scores that decay instead of boxes that are removed.

    C: candidates of all images      G: groups, of one class in one image each
"""

from __future__ import annotations

from typing import Callable, Tuple

import torch
from torch import Tensor

from ...utils.numbers import require
from ..arguments import check_range
from ..box_losses.overlap import elementwise_iou
from ..registry import NMS_REGISTRY
from .seat import Candidates, Suppression

__all__ = ["SoftNMS"]

METHODS = ("linear", "gaussian", "hard")
_STEPS_BETWEEN_LOOKS = 32  # what is decided is left out so often, at one transfer to the host


@NMS_REGISTRY.register()
class SoftNMS(Suppression):
    """Soft-NMS (Bodla et al., Soft-NMS: Improving Object Detection With One Line of Code, ICCV 2017).

    The best candidate of a class is kept, and the scores of the others are multiplied by a function of their IoU o with
    it; then the best of what is left, and so on. All classes and images go at once: as many steps as the largest of
    them has candidates, each linear in the number of candidates. On a GPU the host waits once in 32 steps.

    Args:
        method: "linear", ``1 - o`` from ``NMS_THRESH_TEST`` on (the paper's threshold is 0.3); "gaussian",
            ``exp(-o^2 / sigma)``; "hard", 0 above ``NMS_THRESH_TEST``, which is NMS.
        sigma: of "gaussian", above 0. Towards 0 it is NMS at a threshold of 0, towards infinity at one of 1.
        min_score: candidates whose score decays to this or less are dropped; in [0, 1).
        joint: see :class:`Suppression`.

    Raises:
        ValueError: for another method, or a number out of range.
    """

    def __init__(self, method: str = "gaussian", sigma: float = 0.5, min_score: float = 0.001, joint: bool = False):
        super().__init__(joint)
        check_range(self, "method", method, f"one of {list(METHODS)}", method in METHODS)
        self.method = method
        self.sigma = require(self, "sigma", sigma, above=0)
        self.min_score = require(self, "min_score", min_score, at_least=0, below=1)

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        def factor(ious: Tensor) -> Tensor:
            if self.method == "gaussian":
                return torch.exp(-(ious**2) / self.sigma)
            if self.method == "hard":
                return (ious <= nms_thresh).to(ious.dtype)
            return torch.where(ious < nms_thresh, torch.ones_like(ious), 1 - ious)

        boxes, groups = candidates.boxes, candidates.groups
        num_groups = int(groups.max()) + 1
        rows, scores = _decayed(boxes, candidates.scores, groups, num_groups, factor, self.min_score)
        return candidates.select(rows)._replace(scores=scores)


def _decayed(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, factor: Callable, min_score: float
) -> Tuple[Tensor, Tensor]:
    """Indices of the candidates (C,) that are kept, and the scores that they are kept with."""
    final, rows = torch.full_like(scores, -torch.inf), torch.arange(len(scores), device=scores.device)
    left = scores.clone()  # the scores of what is not decided, as they are by now; -inf of everything else
    while len(rows):
        own_boxes, own_groups, taken = boxes[rows], groups[rows], final[rows]
        index = torch.arange(len(rows), device=rows.device)
        for _ in range(_STEPS_BETWEEN_LOOKS):
            picked = _best_of_group(left, own_groups, num_groups)[own_groups]
            is_picked = picked == index
            taken = torch.where(is_picked, left, taken)
            faded = left * factor(elementwise_iou(own_boxes, own_boxes[picked.clamp(max=len(rows) - 1)]))
            remains = ~is_picked & (left > -torch.inf) & (faded > min_score)
            left = faded.masked_fill(~remains, -torch.inf)
        final[rows] = taken
        undecided = (left > -torch.inf).nonzero()[:, 0]
        rows, left = rows[undecided], left[undecided]
    kept = (final > -torch.inf).nonzero()[:, 0]
    return kept, final[kept]


def _best_of_group(scores: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """(G,): the index of every group's highest score, the first one of equals; C where all are -inf."""
    nothing = scores.new_full((num_groups,), -torch.inf)
    best = nothing.scatter_reduce(0, groups, scores, "amax")[groups]
    index = torch.arange(len(scores), device=scores.device)
    index = index.masked_fill((scores < best) | (best == -torch.inf), len(scores))
    return index.new_full((num_groups,), len(scores)).scatter_reduce(0, groups, index, "amin")
