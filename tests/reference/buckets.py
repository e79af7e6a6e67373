"""SABL's buckets, side by side and bucket by bucket: where a side is, what is trained, what is decoded.

A box is x1, y1, x2, y2. The values of a box are ``values[side][bucket] = (logit, offset)``, the sides in that order.
"""

import math

from .losses import smooth_l1


def scaled(box, factor):
    x1, y1, x2, y2 = box
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, factor * (x2 - x1), factor * (y2 - y1)
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def bucket_middles(box, side, num_buckets, factor):
    """The middles of a side's buckets in pixels, the outermost first, and the size of a bucket."""
    outer = scaled(box, factor)
    axis = side % 2
    size = (outer[axis + 2] - outer[axis]) / num_buckets
    inward = 1 if side < 2 else -1
    return [outer[side] + inward * (i + 0.5) * size for i in range(num_buckets // 2)], size


def loss(values, box, gt_box, num_buckets, factor, beta=0.1, max_offset=1.0, ignore_neighbors=True):
    """The losses of the four sides: a quarter of the buckets' binary cross entropies, and SmoothL1 of the offsets."""
    losses = []
    for side in range(4):
        middles, size = bucket_middles(box, side, num_buckets, factor)
        offsets = [(middle - gt_box[side]) / size for middle in middles]
        nearest = min(range(len(offsets)), key=lambda i: abs(offsets[i]))
        of_buckets = of_offsets = 0.0
        for i, (logit, offset) in enumerate(values[side]):
            near = i != nearest and abs(offsets[i]) < 1
            if not (near and ignore_neighbors):
                of_buckets += math.log1p(math.exp(-logit if i == nearest else logit))
            if i == nearest or abs(offsets[i]) < max_offset:
                of_offsets += smooth_l1(offset - offsets[i], beta) if beta else abs(offset - offsets[i])
        losses.append(of_buckets / 4 + of_offsets)
    return losses


def decode(values, box, num_buckets, factor):
    """The box, and how sure its sides are."""
    sides, sure = [], 0.0
    for side in range(4):
        middles, size = bucket_middles(box, side, num_buckets, factor)
        logits = [logit for logit, _ in values[side]]
        total = sum(map(math.exp, logits))
        first, second = sorted(range(len(logits)), key=lambda i: -logits[i])[:2]
        sides.append(middles[first] - values[side][first][1] * size)
        sure += math.exp(logits[first]) / total
        if abs(first - second) == 1:
            sure += math.exp(logits[second]) / total
    x1, y1, x2, y2 = sides
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], sure / 4
