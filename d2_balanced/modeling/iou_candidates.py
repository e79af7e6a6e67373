"""Jittered copies of the ground-truth boxes of a batch, and which of them are accepted; see ``iou_uniform.py``.

Shape shorthand: G: ground-truth boxes of all images of the batch; R: rows, pairs of one of them and an IoU interval;
C: candidates a row; M: accepted ones a row; S: generated boxes; n: other boxes that overlap one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Objects", "Found"]


class Objects:
    """The ground-truth boxes of a batch, flattened over its images."""

    def __init__(self, gt_boxes, image_sizes):
        self.counts = [len(boxes) for boxes in gt_boxes]
        self.boxes = torch.cat(list(gt_boxes))  # (G, 4)
        limits = self.per_image([(w, h, w, h) for h, w in image_sizes], self.boxes.dtype)
        self.boxes_and_limits = torch.cat([self.boxes, limits], dim=1)  # (G, 8)
        self._neighbours = None

    def per_image(self, values, dtype):
        """One value an image, repeated for each of its objects."""
        values = torch.tensor(values, dtype=dtype).repeat_interleave(torch.tensor(self.counts), dim=0)
        return values.to(self.boxes.device, non_blocking=True)

    def counts_by_image(self, objects):
        """How many of these object indices (S,) every image has; a list."""
        counts = torch.bincount(objects, minlength=len(self.boxes)).split(self.counts)
        return [len(objects)] if len(counts) == 1 else torch.stack([each.sum() for each in counts]).tolist()

    def candidates(self, objects, jitters, first_of_equals=False):
        """The boxes (R, C, 4) that jitters (R, C, 4) of the objects with these indices (R,) give, clipped to the image;
        their IoU (R, C) with their own object; and whether no other object of the image has a higher one.

        ``first_of_equals``: of several ground truths with the same IoU only the first counts as the best.
        """
        gt, limits = self.boxes_and_limits.index_select(0, objects)[:, None].split(4, dim=2)  # (R, 1, 4) each
        size = gt[..., 2:] - gt[..., :2]
        centre = (gt[..., :2] + gt[..., 2:]) / 2 + jitters[..., :2] * size
        half = jitters[..., 2:] * size / 2
        boxes = torch.minimum(torch.cat([centre - half, centre + half], dim=-1).clamp_(min=0), limits)
        own = box_iou(boxes, gt)
        if self._neighbours is None:
            self._neighbours = self._find_neighbours()
        neighbours, earlier = self._neighbours
        if neighbours.shape[1] == 0:
            return boxes, own, torch.ones_like(own, dtype=torch.bool)
        iou = box_iou(boxes[:, :, None], neighbours.index_select(0, objects)[:, None])  # (R, C, n)
        best = iou.amax(dim=2) <= own
        if first_of_equals:
            best = best & ((iou < own[..., None]) | ~earlier[objects, None]).all(dim=2)
        return boxes, own, best

    def _find_neighbours(self):
        """The objects of the same image that overlap each object: boxes (G, n, 4), without area where there are fewer,
        and whether they come before it (G, n).

        Only these can be a better match of a box whose IoU with its own ground truth is at least 0.5, since 1 - IoU is
        a metric.
        """
        iou = box_iou(self.boxes[:, None], self.boxes[None])
        if len(self.counts) > 1:
            image = self.per_image(range(len(self.counts)), torch.long)
            iou = torch.where(image[:, None] == image, iou, torch.zeros_like(iou))
        iou.fill_diagonal_(0)
        most = int((iou > 0).sum(dim=1).max())
        values, indices = iou.topk(most, dim=1)
        earlier = (indices < torch.arange(len(iou), device=iou.device)[:, None]) & (values > 0)
        return self.boxes[indices] * (values > 0)[..., None], earlier


class Found(NamedTuple):
    """Accepted candidates of (ground truth, interval) pairs: boxes and IoUs (R, M, 5), how many are filled (R,)."""

    boxes_and_ious: Tensor
    counts: Tensor

    @classmethod
    def first(cls, boxes, ious, valid, limit):
        """The first ``limit`` valid candidates of every row; candidates come in random order."""
        limit = min(limit, valid.shape[1])
        order = valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :limit]
        order = order + valid.shape[1] * torch.arange(len(valid), device=order.device)[:, None]
        picked = torch.cat([boxes, ious[..., None]], dim=2).view(-1, 5)[order]
        return cls(picked, valid.sum(dim=1).clamp(max=limit))

    def replace(self, rows, other):
        """The same with ``rows`` taken from ``other``."""
        return Found(*(mine.index_copy(0, rows, others) for mine, others in zip(self, other)))

    def head(self, wanted, num_intervals):
        """The first ``wanted`` candidates of every row, as from :meth:`take`; all rows have so many."""
        boxes, ious = self.boxes_and_ious[:, :wanted].reshape(-1, 5).split((4, 1), dim=1)
        num_objects = len(self.counts) // num_intervals
        objects = torch.arange(num_objects, device=boxes.device).repeat_interleave(num_intervals * wanted)
        return boxes, ious[:, 0].contiguous(), objects

    def take(self, wanted, num_intervals, fill=True):
        """``wanted`` (a number or (R,)) candidates of every row, repeating the found ones if they are fewer (``fill``).

        Returns boxes (S, 4), IoUs (S,) and the object index (S,).
        """
        column = torch.arange(self.boxes_and_ious.shape[1], device=self.counts.device)[None]  # (1, M)
        limit = self.counts.clamp(max=wanted) if not fill else (self.counts > 0) * wanted
        rows, columns = (column < limit[:, None]).nonzero(as_tuple=True)
        columns = columns % self.counts[rows].clamp(min=1)
        boxes, ious = self.boxes_and_ious[rows, columns].split((4, 1), dim=1)
        return boxes, ious[:, 0].contiguous(), rows // num_intervals


def box_iou(a, b):
    """IoU of boxes (..., 4), broadcast; 0 for boxes without area."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(dim=-1)
    area = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1)
    return inter / (area - inter).clamp(min=torch.finfo(inter.dtype).tiny)
