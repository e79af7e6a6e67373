"""Training boxes generated uniformly in IoU (IoU-Uniform R-CNN, sec. 3.1).

A *jitter* (dx, dy, sw, sh) of a ground-truth box moves its centre by (dx w, dy h) and scales its sides to (sw w, sh h).
The IoU of the jittered box with its own ground truth depends on the jitter alone, not on the box's size or place. So a
pool of jitters an interval, spread evenly in IoU, is made once; a training step only gathers from it.

Shape shorthand: G: ground-truth boxes of all images of the batch; K: IoU intervals; C: candidates; S: generated boxes.
"""

from typing import List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..utils.numbers import is_number, require
from .image_rows import first_rows
from .iou_pools import INTERVALS, jitter_corners, jitter_pool, released_range
from .jittered_boxes import Found, Objects

__all__ = ["GeneratedBoxes", "UniformIoUGenerator", "RejectionIoUGenerator", "CASCADE_INTERVALS", "stage_intervals"]

CASCADE_INTERVALS = (
    INTERVALS,
    ((0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)),
    ((0.7, 0.8), (0.8, 0.9), (0.9, 1.0)),
)
"""Intervals of the stages of a cascade: the later ones drop the lowest and split the highest."""


def stage_intervals(stage, num=None):
    """The IoU intervals of a cascade's stage: the paper's, or ``num`` that split the same range evenly (sec. 4.1)."""
    paper = CASCADE_INTERVALS[min(stage, len(CASCADE_INTERVALS) - 1)]
    if num is None:
        return paper
    low = paper[0][0]
    edges = [round(low + (1.0 - low) * k / num, 9) for k in range(num + 1)]
    return tuple(zip(edges[:-1], edges[1:]))


NARROWEST = 1e-5
"""Width of the narrowest IoU interval: the IoU of boxes of a thousand pixels is known to some millionths."""

MOST = 1 << 20
"""Of the boxes of an image: they are made in one tensor."""


class GeneratedBoxes(NamedTuple):
    """Boxes generated in one image, ordered by ground truth and interval."""

    boxes: Tensor
    """(S, 4), absolute XYXY, inside the image."""
    matched_idxs: Tensor
    """(S,), index of the ground-truth box that each was made from, which is also its best one."""
    ious: Tensor
    """(S,), IoU with that box."""

    def random_part(self, num):
        """``num`` of the boxes, or all if they are fewer; ``num`` may be a 0-d tensor."""
        keep = torch.randperm(len(self.ious), device=self.ious.device) < num
        return GeneratedBoxes(self.boxes[keep], self.matched_idxs[keep], self.ious[keep])


def _is_interval(interval):
    """Whether it is a pair of numbers ``0 < low < high <= 1``."""
    if isinstance(interval, (str, bytes)) or not isinstance(interval, Sequence) or len(interval) != 2:
        return False
    return all(map(is_number, interval)) and 0.0 < interval[0] < interval[1] <= 1.0


class _Generator(nn.Module):
    """What the generators share: candidates of all images in one batch, accepted by IoU and by best ground truth."""

    def __init__(self, intervals, num_per_interval, max_per_image):
        super().__init__()
        name = type(self).__name__
        if not intervals or not all(map(_is_interval, intervals)):
            raise ValueError(f"{name}: intervals must be pairs 0 < low < high <= 1, got {intervals!r}")
        self.intervals = tuple((float(low), float(high)) for low, high in intervals)
        if min(round(high - low, 9) for low, high in self.intervals) < NARROWEST:
            raise ValueError(
                f"{name}: intervals must be at least {NARROWEST} wide, got {list(intervals)}: in 32-bit pixel coordinates "
                "boxes of closer IoUs cannot be told apart"
            )
        limits = {"at_most": MOST, "integer": True}
        self.num_per_interval = require(self, "num_per_interval", num_per_interval, at_least=1, **limits)
        self.max_per_image = require(self, "max_per_image", max_per_image, at_least=len(self.intervals), **limits)
        self.register_buffer("bounds", torch.tensor(self.intervals), persistent=False)  # (K, 2)

    @torch.no_grad()
    def forward(self, gt_boxes: Sequence[Tensor], image_sizes: Sequence[Tuple[int, int]]) -> List[GeneratedBoxes]:
        """Generate boxes for all ground truths of a batch.

        Args:
            gt_boxes: one tensor (Gi, 4) an image, absolute XYXY in pixels; Gi may be 0.
            image_sizes: (height, width) of every image.

        Returns one :class:`GeneratedBoxes` an image; without ground truth it is empty.
        """
        quotas = {self._quota(len(boxes)) for boxes in gt_boxes if len(boxes)}
        if not quotas:
            return [_empty(boxes) for boxes in gt_boxes]
        gt = Objects(gt_boxes, image_sizes)
        wanted = quotas.pop()
        if quotas:  # one number a ground truth and interval (GK,); mostly it is the same for all
            per_image = [self._quota(num) for num in gt.counts]
            wanted = gt.per_image(per_image, torch.long).repeat_interleave(len(self.intervals))
        boxes, ious, objects, counts = self._draw(gt, wanted)
        parts = zip(boxes.split(counts), objects.split(counts), ious.split(counts), first_rows(gt.counts))
        return [GeneratedBoxes(boxes, objects - start, ious) for boxes, objects, ious, start in parts]

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
        corners = jitter_corners(torch.cat([below[None], pools]).movedim(-1, 0))  # (4, K + 1, pool)
        self.pool_size = corners.shape[2]
        corners = corners.flatten(1).to(self.bounds.device)  # the device that modules are being made on
        self.register_buffer("pools", corners, persistent=False)
        self.register_buffer("numbers", torch.arange(len(self.intervals)), persistent=False)  # of the intervals

    def _draw(self, gt, wanted):
        found = self._accept(gt, None, self.numbers, 2 * self.num_per_interval, wide=False)
        short = (found.counts < wanted).nonzero()[:, 0]
        if len(short):
            objects, interval = short // len(self.intervals), short % len(self.intervals)
            more = self._accept(gt, objects, interval[:, None], 8 * self.num_per_interval, wide=True)
            found = found.replace(short, more)
        elif isinstance(wanted, int):  # the usual case: as many as wanted in every row
            return found.head(wanted, gt.counts)
        return found.take(wanted, gt.counts)

    def _accept(self, gt, objects, interval, num_candidates, wide):
        """Candidates of the intervals (r, K') or (K',) of these objects (r,), ``None`` for all; ``wide``: from the
        lower intervals as well."""
        pool = interval[..., None] + 1
        shape = (gt.total if objects is None else len(objects), interval.shape[-1], num_candidates)
        if wide:  # every other candidate from one of the intervals below
            lower = (torch.rand(shape, device=pool.device) * pool).long()
            pool = torch.where(torch.arange(num_candidates, device=pool.device) % 2 == 0, pool, lower)
        draw = torch.randint(self.pool_size, shape, device=pool.device).add_(pool, alpha=self.pool_size)
        corners = self.pools.index_select(1, draw.view(-1)).view(4, *shape)
        boxes, ious, best = gt.candidates(objects, corners)
        low, high = self.bounds[interval, :, None].unbind(-2)
        return Found.first(boxes, ious, best & (ious >= low) & (ious <= high), self.num_per_interval)


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
        require(self, "tries", tries, at_least=1, integer=True)
        self.tries = tries
        ranges = [released_range(low) for low, _ in self.intervals]
        self.register_buffer("ranges", torch.tensor(ranges), persistent=False)  # (K, 3)

    def _draw(self, gt, wanted):
        offset, low_scale, high_scale = self.ranges[..., None].unbind(1)  # each (K, 1)
        draw = torch.rand(4, gt.total, len(self.intervals), self.tries, device=gt.device)
        shift = (2 * draw[:2] - 1) * offset
        scale = low_scale + draw[2:] * (high_scale - low_scale)
        corners = jitter_corners(torch.cat([shift, scale]))
        boxes, ious, best = gt.candidates(None, corners, first_of_equals=True)
        low, high = self.bounds[..., None].unbind(1)
        valid = best & (ious > low) & (ious <= high)
        return Found.first(boxes, ious, valid, self.num_per_interval).take(wanted, gt.counts, fill=False)


def _empty(gt_boxes):
    return GeneratedBoxes(
        gt_boxes.new_zeros((0, 4)), torch.zeros(0, dtype=torch.long, device=gt_boxes.device), gt_boxes.new_zeros(0)
    )
