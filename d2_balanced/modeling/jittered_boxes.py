"""Jittered copies of the ground-truth boxes of a batch, and which of them are accepted; see ``iou_uniform.py``.

Boxes are (4, ...) here, x1, y1, x2, y2 in planes of their own: many times faster on small tensors.

Shape shorthand: G: ground-truth boxes of all images of the batch; R: rows, pairs of one of them and an IoU interval;
C: candidates a row; M: accepted ones a row; S: generated boxes; n: an object and those that overlap it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .image_rows import count_selected, repeat

__all__ = ["Objects", "Found"]


class Objects:
    """The ground-truth boxes of a batch, flattened over its images."""

    def __init__(self, gt_boxes, image_sizes):
        self.counts = [len(boxes) for boxes in gt_boxes]
        self.total = sum(self.counts)
        boxes = torch.cat(list(gt_boxes)).t()  # (4, G)
        self.device = boxes.device
        limits = self.per_image([(w, h) for h, w in image_sizes], boxes.dtype).t()
        size = boxes[2:] - boxes[:2]
        self.table = torch.cat([boxes, (size[0] * size[1])[None], size, limits])  # (9, G)
        self.nearby, self.neighbours = self._overlapping(self.table[:5])

    def per_image(self, values, dtype):
        """One value (or tuple) an image, repeated for each of its objects."""
        return repeat(torch.tensor(values, dtype=dtype).to(self.device, non_blocking=True), self.counts)

    def candidates(self, objects, corners, first_of_equals=False):
        """Boxes near these r objects, clipped to the image; K' rows each.

        Args:
            objects: their indices (r,); ``None``: all of them.
            corners: (4, r, K', C), the boxes' corners, seen from the object's first corner and in units of its size.
            first_of_equals: of several ground truths with the same IoU only the first counts as the best.

        Returns boxes (4, r, K', C); their IoU (r, K', C) with their own object; and whether no other object of the
        image has a higher one.
        """
        table, nearby = self.table[..., None, None], self.nearby[:, :, None, :, None]
        if objects is not None:
            table, nearby = table.index_select(1, objects), nearby.index_select(1, objects)
        boxes = torch.addcmul(table[:2], table[5:7], corners.view(2, 2, *corners.shape[1:])).clamp_(min=0)
        boxes = torch.minimum(boxes, table[7:]).view(corners.shape)
        iou = _box_iou(boxes[..., None, :], nearby)  # (r, K', n, C)
        own = iou[..., 0, :]
        best = own >= iou.amax(dim=-2)
        if first_of_equals:
            earlier = self.neighbours < torch.arange(self.total, device=self.device)[:, None]  # (G, n)
            earlier = earlier if objects is None else earlier[objects]
            best = best & ~((iou == own[..., None, :]) & earlier[:, None, :, None]).any(dim=-2)
        return boxes, own, best

    def _overlapping(self, boxes):
        """Each object and those of its image that overlap it: boxes and areas (5, G, n), all 0 where there are fewer,
        and their indices (G, n), the object's own first.

        Only these can be a better match of a box whose IoU with its own ground truth is at least 0.5, since 1 - IoU is
        a metric.
        """
        low, high = boxes[:2], boxes[2:4]
        overlap = torch.minimum(high[:, :, None], high[:, None]) > torch.maximum(low[:, :, None], low[:, None])
        overlap = overlap.all(dim=0)
        if len(self.counts) > 1:
            image = self.per_image(range(len(self.counts)), torch.long)
            overlap = overlap & (image[:, None] == image)
        rank = overlap.to(boxes.dtype).fill_diagonal_(2)
        values, indices = rank.topk(int(rank.sum(dim=1).amax()) - 1, dim=1)
        return boxes.index_select(1, indices.view(-1)).view(5, *indices.shape) * (values > 0), indices


class Found(NamedTuple):
    """Accepted candidates of (ground truth, interval) pairs: boxes and IoUs (5, R, M), how many were valid (R,)."""

    boxes_and_ious: Tensor
    counts: Tensor

    @classmethod
    def first(cls, boxes, ious, valid, limit):
        """The first ``limit`` valid candidates of every row; candidates come in random order.

        Args:
            boxes, ious, valid: (4, r, K', C), and twice (r, K', C); there are r K' rows.
        """
        num = valid.shape[-1]
        place = valid.view(-1, num).cumsum(dim=1)  # the m-th valid one is where m is reached
        wanted = torch.arange(1, min(limit, num) + 1, device=place.device).expand(len(place), -1).contiguous()
        columns = torch.searchsorted(place, wanted).clamp_(max=num - 1)
        candidates = torch.cat([boxes, ious[None]]).view(5, -1, num)
        return cls(candidates.gather(2, columns.expand(5, -1, -1)), place[:, -1])

    def replace(self, rows, other):
        """The same with ``rows`` taken from ``other``."""
        return Found(
            self.boxes_and_ious.index_copy(1, rows, other.boxes_and_ious), self.counts.index_copy(0, rows, other.counts)
        )

    def head(self, wanted, num_objects):
        """The first ``wanted`` candidates of every row, as from :meth:`take`; all rows have so many."""
        picked = self.boxes_and_ious[:, :, :wanted].reshape(5, -1)
        of_object = wanted * (len(self.counts) // sum(num_objects))
        objects = torch.arange(picked.shape[1], device=picked.device) // of_object
        return picked[:4].t().contiguous(), picked[4], objects, [num * of_object for num in num_objects]

    def take(self, wanted, num_objects, fill=True):
        """``wanted`` (a number or (R,)) candidates of every row, repeating the found ones if they are fewer (``fill``).

        Args:
            num_objects: how many objects every image has; they all have equally many rows.

        Returns boxes (S, 4), IoUs (S,), the object index (S,), and a list: how many of them every image has.
        """
        num_intervals = len(self.counts) // sum(num_objects)
        counts = self.counts.clamp(max=self.boxes_and_ious.shape[2])
        limit = counts.clamp(max=wanted) if not fill else (counts > 0) * wanted
        before, sizes = count_selected(limit, [num * num_intervals for num in num_objects])
        places = torch.arange(sum(sizes), device=limit.device)
        rows = torch.searchsorted(before[1:], places, right=True)
        columns = (places - before[rows]) % counts[rows]
        picked = self.boxes_and_ious[:, rows, columns].contiguous()
        return picked[:4].t().contiguous(), picked[4], rows // num_intervals, sizes


def _box_iou(boxes, others):
    """IoU of boxes (4, ...) with others and their areas (5, ...), broadcast; 0 for boxes without area."""
    size = boxes[2:] - boxes[:2]
    shared = torch.minimum(boxes[2:], others[2:4]).sub_(torch.maximum(boxes[:2], others[:2])).clamp_(min=0)
    inter = shared[0].mul_(shared[1])  # in place: in crowds these are large
    union = (size[0] * size[1] + others[4]).sub_(inter)
    return inter.div_(union.clamp_(min=torch.finfo(inter.dtype).tiny))
