"""Suppressions of one class in one image, box by box in Python's numbers. Boxes are (x1, y1, x2, y2)."""

import math


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def soft_nms(boxes, scores, method, sigma, thresh, min_score):
    """``{index: final score}`` of what is kept (Bodla et al. 2017)."""
    left, kept = dict(enumerate(scores)), {}
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        kept[best] = left.pop(best)
        for i in list(left):
            o = iou(boxes[best], boxes[i])
            if method == "gaussian":
                left[i] *= math.exp(-o * o / sigma)
            elif o > thresh:
                left[i] *= 1 - o if method == "linear" else 0.0
            if left[i] <= min_score:
                del left[i]
    return kept


def iou_guided(boxes, scores, ious, thresh):
    """``{index: final score}`` of what is kept (Jiang et al. 2018)."""
    left, kept = set(range(len(boxes))), {}
    while left:
        best = max(left, key=lambda i: (ious[i], -i))
        left.remove(best)
        removed = {i for i in left if iou(boxes[best], boxes[i]) > thresh}
        left -= removed
        kept[best] = max(scores[i] for i in removed | {best})
    return kept


def vote(boxes, variances, kept, vote_sigma):
    """The box that a kept one becomes (He et al. 2019)."""
    moved = []
    for axis in range(4):
        total = weighted = 0.0
        for i, box in enumerate(boxes):
            o = iou(boxes[kept], box)
            if o > 0:
                weight = math.exp(-((1 - o) ** 2) / vote_sigma) / variances[i][axis]
                total, weighted = total + weight, weighted + weight * box[axis]
        moved.append(weighted / total)
    return moved
