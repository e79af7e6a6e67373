"""Box losses of one residual, or of one box (x1, y1, x2, y2), straight from the formulas."""

import math


def smooth_l1(residual, beta):
    x = abs(residual)
    return 0.5 * x * x / beta if x < beta else x - 0.5 * beta


def balanced_l1(residual, alpha, gamma):
    """Libra R-CNN eq. 9, with its constant C from continuity at 1 (beta is 1 in the paper)."""
    x, b = abs(residual), math.exp(gamma / alpha) - 1

    def inlier(x):
        return alpha / b * (b * x + 1) * math.log(b * x + 1) - alpha * x

    return inlier(x) if x < 1 else gamma * x + inlier(1.0) - gamma


def balanced_l1_gradient(residual, alpha, gamma):
    """Libra R-CNN eq. 7 and 8: the gradient that the loss is made from."""
    x, b = abs(residual), math.exp(gamma / alpha) - 1
    size = alpha * math.log(b * x + 1) if x < 1 else gamma
    return math.copysign(size, residual)


def authentic_smooth_l1(residual, mu):
    """GHM-R's loss (Li et al. 2019), and the gradient norm that it is harmonised by."""
    root = math.sqrt(residual * residual + mu * mu)
    return root - mu, abs(residual) / root


def kl(residual, log_variance):
    """He et al. 2019: quadratic for errors up to 1, then linear."""
    x, alpha = abs(residual), log_variance
    return math.exp(-alpha) * (x * x / 2 if x <= 1 else x - 0.5) + alpha / 2


def _parts(box, other):
    """Intersection, union, and width and height of the smallest box around both."""
    size = [max(min(box[i + 2], other[i + 2]) - max(box[i], other[i]), 0) for i in (0, 1)]
    inter = size[0] * size[1]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    around = [max(box[i + 2], other[i + 2]) - min(box[i], other[i]) for i in (0, 1)]
    return inter, sum(areas) - inter, around


def _center_and_size(box):
    return [(box[i] + box[i + 2]) / 2 for i in (0, 1)], [box[i + 2] - box[i] for i in (0, 1)]


def iou(box, other):
    inter, union, _ = _parts(box, other)
    return inter / union


def giou(box, other):
    inter, union, (w, h) = _parts(box, other)
    return 1 - inter / union + (w * h - union) / (w * h)


def diou(box, other):
    inter, union, (w, h) = _parts(box, other)
    (center, _), (other_center, _) = _center_and_size(box), _center_and_size(other)
    return 1 - inter / union + math.dist(center, other_center) ** 2 / (w * w + h * h)


def ciou(box, other):
    (_, (w, h)), (_, (other_w, other_h)) = _center_and_size(box), _center_and_size(other)
    v = 4 / math.pi**2 * (math.atan(other_w / other_h) - math.atan(w / h)) ** 2
    return diou(box, other) + (v * v / (1 - iou(box, other) + v) if v else 0.0)


def eiou(box, other, gamma):
    _, _, around = _parts(box, other)
    (_, size), (_, other_size) = _center_and_size(box), _center_and_size(other)
    sides = sum((s - o) ** 2 / a**2 for s, o, a in zip(size, other_size, around))
    return iou(box, other) ** gamma * (diou(box, other) + sides)


def bounded_iou(box, other, beta):
    """[x, y, w, h]: the Huber loss of one minus the best IoU that each parameter's error leaves possible."""
    (center, size), (other_center, other_size) = _center_and_size(box), _center_and_size(other)
    errors = [2 * abs(c - o) for c, o in zip(center, other_center)]
    bounds = [max(0, (o - e) / (o + e)) for e, o in zip(errors, other_size)]
    bounds += [min(s / o, o / s) for s, o in zip(size, other_size)]
    return [smooth_l1(1 - bound, beta) for bound in bounds]
