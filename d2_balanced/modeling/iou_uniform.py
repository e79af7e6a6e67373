"""Training boxes generated uniformly in IoU (IoU-Uniform R-CNN, sec. 3.1).

A *jitter* (dx, dy, sw, sh) of a ground-truth box moves its centre by (dx w, dy h) and scales its sides to (sw w, sh h).
The IoU of the jittered box with its own ground truth depends on the jitter alone, not on the box's size or place. So a
pool of jitters an interval, spread evenly in IoU, is made once; a training step only gathers from it.

Shape shorthand: G: ground-truth boxes of all images of the batch; K: IoU intervals; C: candidates; S: generated boxes.
"""

from typing import List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor, nn

from .iou_pools import INTERVALS, jitter_pool, released_range

__all__ = ["GeneratedBoxes", "UniformIoUGenerator", "RejectionIoUGenerator", "CASCADE_INTERVALS"]

CASCADE_INTERVALS = (
    INTERVALS,
    ((0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)),
    ((0.7, 0.8), (0.8, 0.9), (0.9, 1.0)),
)
"""Intervals of the stages of a cascade: the later ones drop the lowest and split the highest."""


class GeneratedBoxes(NamedTuple):
    """Boxes generated in one image, ordered by ground truth and interval."""

    boxes: Tensor
    """(S, 4), absolute XYXY, inside the image."""
    matched_idxs: Tensor
    """(S,), index of the ground-truth box that each was made from, which is also its best one."""
    ious: Tensor
    """(S,), IoU with that box."""


class _Generator(nn.Module):
    """What the generators share: candidates of all images in one batch, accepted by IoU and by best ground truth."""

    def __init__(self, intervals, num_per_interval, max_per_image):
        super().__init__()
        name = type(self).__name__
        self.intervals = tuple((float(low), float(high)) for low, high in intervals)
        if not self.intervals or not all(0.0 < low < high <= 1.0 for low, high in self.intervals):
            raise ValueError(f"{name}: intervals must be pairs 0 < low < high <= 1, got {list(intervals)}")
        if num_per_interval < 1:
            raise ValueError(f"{name}: num_per_interval must be at least 1, got {num_per_interval}")
        if max_per_image < len(self.intervals):
            raise ValueError(f"{name}: max_per_image must be at least {len(self.intervals)}, got {max_per_image}")
        self.num_per_interval = num_per_interval
        self.max_per_image = max_per_image
        self.register_buffer("bounds", torch.tensor(self.intervals), persistent=False)  # (K, 2)

    @torch.no_grad()
    def forward(self, gt_boxes: Sequence[Tensor], image_sizes: Sequence[Tuple[int, int]]) -> List[GeneratedBoxes]:
        """Generate boxes for all ground truths of a batch.

        Args:
            gt_boxes: one tensor (Gi, 4) an image, absolute XYXY in pixels; Gi may be 0.
            image_sizes: (height, width) of every image.

        Returns one :class:`GeneratedBoxes` an image; without ground truth it is empty.
        """
        gt = _Objects(gt_boxes, image_sizes)
        wanted = gt.per_image([self._quota(len(boxes)) for boxes in gt_boxes], torch.long)[:, None].expand(
            -1, len(self.intervals)
        )  # (G, K)
        if len(gt.boxes) == 0:
            return [_empty(boxes) for boxes in gt_boxes]
        boxes, ious, rows = self._draw(gt, wanted)
        matched = gt.index_in_image[rows]
        counts = torch.bincount(gt.image_index[rows], minlength=len(gt_boxes)).tolist()
        parts = zip(boxes.split(counts), matched.split(counts), ious.split(counts))
        return [GeneratedBoxes(*part) for part in parts]

    def _quota(self, num_objects):
        """Boxes an interval and ground truth in an image of so many objects: fewer in crowds, but at least one."""
        room = self.max_per_image // max(num_objects * len(self.intervals), 1)
        return max(1, min(self.num_per_interval, room))


class UniformIoUGenerator(_Generator):
    """Exactly as many boxes in every IoU interval of every ground truth, spread evenly over the interval.

    Boxes are clipped to the image and are counted by the IoU that they have afterwards. A ground truth for which the
    first candidates do not suffice (objects around it, image border) gets a second, larger draw; what is then still
    missing is filled by repeating the boxes found. Only an interval in which no candidate at all is valid stays empty.
    Left and right, up and down, larger and smaller are equally likely. Identical ground truths get as many boxes each.

    Args:
        intervals: IoU intervals ``(low, high)``.
        num_per_interval: boxes an interval and ground truth (the paper's 64 a ground truth are 16 times 4 intervals).
        max_per_image: limit for crowds; the boxes an interval are reduced evenly to stay below it.
    """

    def __init__(self, intervals=INTERVALS, num_per_interval=16, max_per_image=2048):
        super().__init__(intervals, num_per_interval, max_per_image)
        pools = torch.stack([jitter_pool(interval) for interval in self.intervals])  # (K, pool, 4)
        # Jitters below the lowest interval: clipping at the image border lifts them into it.
        below = jitter_pool((self.intervals[0][0] / 2, self.intervals[0][0]))
        pools = torch.cat([below[None], pools]).to(self.bounds.device)  # the device that modules are being made on
        self.register_buffer("pools", pools, persistent=False)  # (K + 1, pool, 4)

    def _draw(self, gt, wanted):
        rows = torch.arange(len(gt.boxes) * len(self.intervals), device=gt.boxes.device)
        found = self._accept(gt, rows, wanted.reshape(-1), 2 * self.num_per_interval, wide=False)
        short = (found.counts < wanted.reshape(-1)).nonzero()[:, 0]
        if len(short):
            more = self._accept(gt, short, wanted.reshape(-1)[short], 8 * self.num_per_interval, wide=True)
            found = found.replace(short, more)
        return found.take(wanted.reshape(-1), len(self.intervals))

    def _accept(self, gt, rows, wanted, num_candidates, wide):
        """Candidates of the (ground truth, interval) pairs ``rows``; ``wide``: from the lower intervals as well."""
        objects, interval = rows // len(self.intervals), rows % len(self.intervals)
        pool = interval[:, None].expand(-1, num_candidates) + 1
        if wide:  # every other candidate from one of the intervals below
            lower = (torch.rand(pool.shape, device=pool.device) * pool).long()
            pool = torch.where(torch.arange(num_candidates, device=pool.device) % 2 == 0, pool, lower)
        draw = torch.randint(self.pools.shape[1], pool.shape, device=pool.device)
        boxes = gt.jittered(objects, self.pools[pool, draw])
        ious, best = gt.overlaps(objects, boxes)
        low, high = self.bounds[interval].unbind(1)
        valid = best & (ious >= low[:, None]) & (ious <= high[:, None])
        return _Found.first(boxes, ious, valid, self.num_per_interval)


class RejectionIoUGenerator(_Generator):
    """The released sampler: a fixed number of uniform jitters an interval, of which the valid ones are kept.

    It is not uniform: few jitters land in the low intervals, fewer in crowds. Of identical ground truths only the
    first gets boxes. For comparison with the released code; :class:`UniformIoUGenerator` is the one to use.

    Args:
        intervals, num_per_interval, max_per_image: as for :class:`UniformIoUGenerator`.
        tries: jitters drawn an interval and ground truth.
    """

    def __init__(self, intervals=INTERVALS, num_per_interval=16, max_per_image=1 << 20, tries=500):
        super().__init__(intervals, num_per_interval, max_per_image)
        if tries < 1:
            raise ValueError(f"RejectionIoUGenerator: tries must be at least 1, got {tries}")
        self.tries = tries
        ranges = [released_range(low) for low, _ in self.intervals]
        self.register_buffer("ranges", torch.tensor(ranges), persistent=False)  # (K, 3)

    def _draw(self, gt, wanted):
        num_intervals = len(self.intervals)
        rows = torch.arange(len(gt.boxes) * num_intervals, device=gt.boxes.device)
        objects, interval = rows // num_intervals, rows % num_intervals
        offset, low_scale, high_scale = self.ranges[interval][:, :, None, None].unbind(1)  # each (GK, 1, 1)
        draw = torch.rand(len(rows), self.tries, 4, device=gt.boxes.device)
        shift = (2 * draw[..., :2] - 1) * offset
        scale = low_scale + draw[..., 2:] * (high_scale - low_scale)
        boxes = gt.jittered(objects, torch.cat([shift, scale], dim=-1))
        ious, best = gt.overlaps(objects, boxes, first_of_equals=True)
        low, high = self.bounds[interval].unbind(1)
        valid = best & (ious > low[:, None]) & (ious <= high[:, None])
        return _Found.first(boxes, ious, valid, self.num_per_interval).take(wanted.reshape(-1), num_intervals, fill=False)


class _Objects:
    """The ground-truth boxes of a batch, flattened over its images."""

    def __init__(self, gt_boxes, image_sizes):
        counts = [len(boxes) for boxes in gt_boxes]
        self.counts = counts
        self.boxes = torch.cat(list(gt_boxes))  # (G, 4)
        self.image_index = self.per_image(range(len(counts)), torch.long)  # (G,)
        index = torch.arange(len(self.boxes), device=self.boxes.device)
        self.index_in_image = index - self.per_image(_starts(counts), torch.long)
        limits = [(w, h, w, h) for h, w in image_sizes]
        self.limits = self.per_image(limits, self.boxes.dtype)  # (G, 4)
        self._neighbours = None

    def per_image(self, values, dtype):
        """One value an image, repeated for each of its objects."""
        values = torch.tensor(list(values), dtype=dtype)
        return values.repeat_interleave(torch.tensor(self.counts), dim=0).to(self.boxes.device, non_blocking=True)

    def jittered(self, objects, jitters):
        """Boxes (R, C, 4) of jitters (R, C, 4), clipped to their images; ``objects`` (R,) are indices."""
        gt = self.boxes[objects]
        size = (gt[:, 2:] - gt[:, :2])[:, None]  # (R, 1, 2)
        centre = (gt[:, None, :2] + gt[:, None, 2:]) / 2 + jitters[..., :2] * size
        half = jitters[..., 2:] * size / 2
        boxes = torch.cat([centre - half, centre + half], dim=-1)
        return torch.minimum(boxes.clamp(min=0), self.limits[objects][:, None])

    def overlaps(self, objects, boxes, first_of_equals=False):
        """IoU (R, C) of boxes (R, C, 4) with their own ground truth, and whether no other one has a higher IoU.

        ``first_of_equals``: of several ground truths with the same IoU only the first counts as the best.
        """
        own = _iou(boxes, self.boxes[objects][:, None])
        if self._neighbours is None:
            self._neighbours = self._find_neighbours()
        neighbours, exists = self._neighbours
        if neighbours.shape[1] == 0:
            return own, torch.ones_like(own, dtype=torch.bool)
        others = neighbours[objects]  # (R, n)
        iou = _iou(boxes[:, :, None], self.boxes[others][:, None])  # (R, C, n)
        worse = iou <= own[..., None]
        if first_of_equals:
            worse = worse & ((iou < own[..., None]) | (others > objects[:, None])[:, None])
        return own, (worse | ~exists[objects][:, None]).all(dim=2)

    def _find_neighbours(self):
        """Objects of the same image that overlap each object: indices (G, n) and whether the entry is one (G, n).

        Only these can be a better match of a box whose IoU with its own ground truth is at least 0.5, since 1 - IoU is
        a metric.
        """
        iou = _iou(self.boxes[:, None], self.boxes[None])
        iou = torch.where(self.image_index[:, None] == self.image_index[None], iou, torch.zeros_like(iou))
        iou.fill_diagonal_(0)
        most = int((iou > 0).sum(dim=1).max())
        values, indices = iou.topk(most, dim=1)
        return indices, values > 0


class _Found(NamedTuple):
    """Accepted candidates of (ground truth, interval) pairs: boxes (R, M, 4), IoUs (R, M), how many are filled (R,)."""

    boxes: Tensor
    ious: Tensor
    counts: Tensor

    @classmethod
    def first(cls, boxes, ious, valid, limit):
        """The first ``limit`` valid candidates of every row; candidates come in random order."""
        limit = min(limit, valid.shape[1])
        order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[:, :limit]
        picked = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return cls(picked, ious.gather(1, order), valid.sum(dim=1).clamp(max=limit))

    def replace(self, rows, other):
        """The same with ``rows`` taken from ``other``."""
        boxes, ious, counts = self.boxes.clone(), self.ious.clone(), self.counts.clone()
        boxes[rows], ious[rows], counts[rows] = other.boxes, other.ious, other.counts
        return _Found(boxes, ious, counts)

    def take(self, wanted, num_intervals, fill=True):
        """``wanted`` (R,) candidates of every row, the found ones repeated where there are fewer (``fill``).

        Returns boxes (S, 4), IoUs (S,) and the object index (S,).
        """
        column = torch.arange(self.ious.shape[1], device=wanted.device)[None]  # (1, M)
        limit = torch.where(self.counts > 0, wanted, 0) if fill else torch.minimum(self.counts, wanted)
        rows, columns = (column < limit[:, None]).nonzero(as_tuple=True)
        columns = columns % self.counts[rows].clamp(min=1)
        return self.boxes[rows, columns], self.ious[rows, columns], rows // num_intervals


def _iou(a, b):
    """IoU of boxes (..., 4), broadcast; 0 for boxes without area."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(dim=-1)
    area = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1)
    return inter / (area - inter).clamp(min=torch.finfo(inter.dtype).tiny)


def _starts(counts):
    starts, total = [], 0
    for count in counts:
        starts.append(total)
        total += count
    return starts


def _empty(gt_boxes):
    return GeneratedBoxes(
        gt_boxes.new_zeros((0, 4)), torch.zeros(0, dtype=torch.long, device=gt_boxes.device), gt_boxes.new_zeros(0)
    )
