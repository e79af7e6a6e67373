"""Weights and choices of samples, straight from the papers' formulas: Python numbers, one RoI after another."""


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return w * h / (sum(areas) - w * h)


def clusters(boxes, scores, threshold):
    """NMS: for every box the index of the one that keeps it from being a detection, or its own."""
    suppressor = [None] * len(boxes)
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if suppressor[i] is not None:
            continue
        for j in range(len(boxes)):
            if suppressor[j] is None and (j == i or iou(boxes[i], boxes[j]) > threshold):
                suppressor[j] = i
    return suppressor


def hierarchical_local_ranks(values, groups, classes):
    """Cao et al. 2020: place in the class, of samples in order of their place in the group, then of their value."""
    place = [sum(groups[j] == groups[i] and values[j] > values[i] for j in range(len(values))) for i in range(len(values))]
    order = sorted(range(len(values)), key=lambda i: (place[i], -values[i]))
    return [sum(classes[j] == classes[i] for j in order[: order.index(i)]) for i in range(len(values))]


def isr(values, groups, classes, losses, gamma, beta):
    """Cao et al. 2020: weights, which keep the sum, of the samples of one side, positives or negatives."""
    ranks = hierarchical_local_ranks(values, groups, classes)
    weights = []
    for rank, c in zip(ranks, classes):
        n = classes.count(c)
        weights.append(((1 - beta) * (n - rank) / n + beta) ** gamma)
    scale = sum(losses) / sum(w * loss for w, loss in zip(weights, losses)) if losses else 1.0
    return [w * scale for w in weights]


def carl(scores, k, b):
    """c_i of the positives, from the scores of their classes."""
    v = [((1 - b) * p + b) ** k for p in scores]
    return [each / (sum(v) / len(v)) for each in v]


def hardest(losses, boxes, positive, num, threshold, quota=None):
    """OHEM in one image: indices, the hardest first; ``quota``: at most so many positives, and negatives up to num."""
    kept = [i for i, j in enumerate(clusters(boxes, losses, threshold)) if i == j] if threshold < 1 else range(len(boxes))
    order = sorted(kept, key=lambda i: -losses[i])
    if quota is None:
        return order[:num]
    positives = [i for i in order if positive[i]][:quota]
    return positives + [i for i in order if not positive[i]][: num - len(positives)]
