"""How far the detections of an exported file are from those of the detector that it was made of.

    Outputs: a dict of the tensors that ``outputs_of`` (``tracing.py``) describes
    N, M: detections of an image by the detector and by the file
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Sequence, Tuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["Bounds", "Differences", "differences", "worst"]

Outputs = Dict[str, Tensor]

_APART = 100  # times the bounds: further apart they are two detections


class Bounds(NamedTuple):
    """What is still the same detection."""

    box: float
    """Of a coordinate, in pixels of the model's input."""
    score: float
    mask: float
    """Of the probability of a pixel of a mask."""


class Differences(NamedTuple):
    """The largest ones, of one image or of several."""

    pairs: int
    """Detections that both have."""
    alone: int
    """Detections that only one of them has."""
    box: float
    score: float
    mask: float

    def within(self, bounds: Bounds) -> bool:
        """Whether both found the same."""
        return not self.alone and self.box <= bounds.box and self.score <= bounds.score and self.mask <= bounds.mask


def differences(reference: Outputs, found: Outputs, bounds: Bounds, threshold: float, limit: int) -> Differences:
    """Compare the detections of one image, each of the detector with the nearest one of its class in the file's.

    A detection that is alone is not counted if a difference within the bounds explains it: its score is at the
    ``threshold``, or at the last score where there are ``limit`` detections.
    """
    box, score = _gaps(reference, found)
    distance = torch.maximum(box / bounds.box, score / bounds.score).clamp(max=_APART)
    first, second = map(torch.as_tensor, linear_sum_assignment(distance.numpy()))
    close = distance[first, second] < _APART
    pairs = first[close], second[close]
    lasts = [float(each["scores"].min()) for each in (reference, found) if 0 < limit <= len(each["scores"])]
    end = max([threshold, *lasts]) + bounds.score
    alone = sum(_left(each["scores"], rows, end) for each, rows in zip((reference, found), pairs))
    largest = {name: _largest_of(name, reference, found, pairs) for name in ("mask_scores", "masks")}
    return Differences(
        pairs=len(pairs[0]),
        alone=alone,
        box=_largest(box[pairs]),
        score=max(_largest(score[pairs]), largest["mask_scores"]),
        mask=largest["masks"],
    )


def worst(images: Sequence[Differences]) -> Differences:
    """The largest differences of several images, and the sums of what is counted."""
    pairs, alone, box, score, mask = zip(*images)
    return Differences(sum(pairs), sum(alone), max(box), max(score), max(mask))


def _gaps(reference: Outputs, found: Outputs) -> Tuple[Tensor, Tensor]:
    """Largest difference of a coordinate, and difference of the scores: (N, M) each; infinite between classes."""
    boxes = (reference["boxes"][:, None] - found["boxes"][None]).abs().amax(dim=2)
    scores = (reference["scores"][:, None] - found["scores"][None]).abs()
    other = reference["classes"][:, None] != found["classes"][None]
    return boxes.masked_fill(other, torch.inf), scores.masked_fill(other, torch.inf)


def _left(scores: Tensor, paired: Tensor, end: float) -> int:
    """How many detections are not among the ``paired`` rows although their score is above ``end``."""
    left = torch.ones(len(scores), dtype=torch.bool)
    left[paired] = False
    return int((left & (scores > end)).sum())


def _largest_of(name: str, reference: Outputs, found: Outputs, pairs: Tuple[Tensor, Tensor]) -> float:
    """The largest difference of an output of the pairs; 0 where the detector does not have it."""
    if name not in reference:
        return 0.0
    return _largest((reference[name][pairs[0]] - found[name][pairs[1]]).abs())


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
