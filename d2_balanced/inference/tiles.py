"""Large images in overlapping tiles: where they lie, and how what is found in them becomes the objects of the image.

Shape shorthand: N: detections of all windows of an image; H, W: its height and width.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Sequence, Tuple

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import pairwise_intersection

from ..utils.numbers import require

__all__ = ["Tiles", "Window", "merge_windows"]

_CUT = 0.5  # what the score of a cut object counts where it competes with another box
_INSIDE = 0.5  # part of a cut object's box that lies in a better box, above which it is the same object
_AT_BORDER = 0.01  # of a window's side: so near to a border inside the image, a box is cut by it

Window = Tuple[int, int, int, int]  # x1, y1, x2, y2, in pixels of the image


class Tiles:
    """Overlapping squares that cover an image, all of one size; those at its end are moved inside.

    Args:
        size: side of a tile, in pixels of the image.
        overlap: part of a tile that its neighbour covers, too, from 0 and below 1. What is no larger than the overlap
            lies whole in some tile.

    Raises ``ValueError`` for numbers out of range.
    """

    def __init__(self, size: int, overlap: float = 0.2):
        self.size = require(self, "size", size, at_least=1, integer=True)
        self.overlap = require(self, "overlap", overlap, at_least=0, below=1)

    def windows(self, height: int, width: int) -> List[Window]:
        """The whole image, for what is larger than a tile, then the tiles; it alone where one tile would cover it."""
        whole = (0, 0, width, height)
        if height <= self.size and width <= self.size:
            return [whole]
        lefts, tops = self._starts(width), self._starts(height)
        right, bottom = min(self.size, width), min(self.size, height)
        return [whole, *((x, y, x + right, y + bottom) for y in tops for x in lefts)]

    def _starts(self, length: int) -> List[int]:
        if length <= self.size:
            return [0]
        step = max(1, math.floor(self.size * (1 - self.overlap)))
        return [*range(0, length - self.size, step), length - self.size]


class _Limits(NamedTuple):
    boxes: torch.Tensor  # (N, 4), in pixels of the image
    scores: torch.Tensor  # (N,)
    classes: torch.Tensor  # (N,)
    owners: torch.Tensor  # (N,) index of the window
    cut: torch.Tensor  # (N,) bool


def merge_windows(
    found: Sequence[Instances], windows: Sequence[Window], nms_thresh: float
) -> Instances:
    """The objects of an image from those of its windows, each once, best first.

    One class-wise NMS (detectron2's ``batched_nms``) over all windows. A tile cuts what lies across its border, and
    the part that it shows may be found with a high score: a box that ends at such a border counts half its score
    there, so that a whole one of the same object wins unless it is much worse. Then a cut box goes where more than half
    of it lies in a better box of its class from another window.

    Args:
        found: for every window its ``Instances`` on the CPU, in pixels of the window.
        windows: the first one is the whole image.
        nms_thresh: the IoU above which two boxes of a class are one object.

    Returns the ``Instances`` of the image, with the fields of ``found``; of one window alone just these.
    """
    if len(windows) == 1:
        return found[0]
    width, height = windows[0][2:]
    limits = _in_image(found, windows, height, width)
    competing = torch.where(limits.cut, limits.scores * _CUT, limits.scores)
    kept = batched_nms(limits.boxes, competing, limits.classes, nms_thresh)  # best first
    kept = kept[~_hidden(_Limits(*(each[kept] for each in limits)))]
    kept = kept[limits.scores[kept].argsort(descending=True, stable=True)]
    return _selected(found, windows, limits, kept, height, width)


def _in_image(found, windows, height, width) -> _Limits:
    corners = torch.tensor([window[:2] * 2 for window in windows], dtype=torch.float32)
    owners = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(each) for each in found]))
    boxes = torch.cat([each.pred_boxes.tensor for each in found]) + corners[owners]
    ends = torch.tensor(windows, dtype=torch.float32)
    inner = torch.stack([ends[:, 0] > 0, ends[:, 1] > 0, ends[:, 2] < width, ends[:, 3] < height], dim=1)
    margins = _AT_BORDER * (ends[:, 2:] - ends[:, :2]).repeat(1, 2)
    near = (boxes - ends[owners]).abs() <= margins[owners].clamp(min=1.0)
    return _Limits(
        boxes,
        torch.cat([each.scores for each in found]),
        torch.cat([each.pred_classes for each in found]),
        owners,
        (near & inner[owners]).any(dim=1),
    )


def _hidden(limits: _Limits) -> torch.Tensor:
    """Which of the boxes, (M,) and best first, are parts of an object that a better box shows."""
    (cut,) = torch.where(limits.cut)
    shared = pairwise_intersection(Boxes(limits.boxes[cut]), Boxes(limits.boxes))  # (cut ones, M)
    inside = shared > _INSIDE * Boxes(limits.boxes[cut]).area()[:, None]
    other = (limits.owners[cut][:, None] != limits.owners) & (limits.classes[cut][:, None] == limits.classes)
    better = torch.arange(len(limits.cut)) < cut[:, None]
    hidden = torch.zeros_like(limits.cut)
    hidden[cut] = (inside & other & better).any(dim=1)
    return hidden


def _selected(found, windows, limits, kept, height, width) -> Instances:
    """The rows ``kept`` of all windows together, in the image's coordinates."""
    starts = torch.tensor([len(each) for each in found]).cumsum(0) - torch.tensor([len(each) for each in found])
    rows = (kept - starts[limits.owners[kept]]).tolist()
    result = Instances((height, width))
    for name in found[0].get_fields():
        if name == "pred_boxes":
            result.pred_boxes = Boxes(limits.boxes[kept])
        elif name == "pred_masks":
            result.pred_masks = torch.zeros(len(kept), height, width, dtype=torch.bool)
            for mask, owner, row in zip(result.pred_masks, limits.owners[kept].tolist(), rows):
                x1, y1, x2, y2 = windows[owner]
                mask[y1:y2, x1:x2] = found[owner].pred_masks[row]
        else:
            values = torch.cat([each.get(name) for each in found])[kept]
            if name == "pred_keypoints":  # (M, K, 3): x, y, score
                values[:, :, :2] += torch.tensor([window[:2] for window in windows])[limits.owners[kept]][:, None]
            result.set(name, values)
    return result
