"""Recall after NMS, correlation and reliability of predicted IoUs, one box or pair at a time in plain Python."""

import math


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height) if width * height else 0.0


def kept(boxes, classes, keys, nms_thresh):
    """Indices that NMS a class keeps, highest key first."""
    result = []
    for k in sorted(range(len(boxes)), key=lambda k: -keys[k]):
        if all(classes[k] != classes[j] or iou(boxes[k], boxes[j]) <= nms_thresh for j in result):
            result.append(k)
    return result


def recall(images, keys, nms_thresh, thresholds, topk=None):
    """Share of the objects of ``images`` [(boxes, classes, gt boxes, gt classes)] that are found, by threshold."""
    found, objects = [0] * len(thresholds), 0
    for (boxes, classes, gt_boxes, gt_classes), image_keys in zip(images, keys):
        rows = kept(boxes, classes, image_keys, nms_thresh)[:topk]
        for gt_box, gt_class in zip(gt_boxes, gt_classes):
            objects += 1
            for t, threshold in enumerate(thresholds):
                found[t] += any(classes[k] == gt_class and iou(boxes[k], gt_box) >= threshold for k in rows)
    return [count / objects for count in found]


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(values):
    """Rank from 1 of every value; equal ones share the mean of theirs."""
    result = []
    for value in values:
        below, equal = sum(v < value for v in values), sum(v == value for v in values)
        result.append(below + (equal + 1) / 2)
    return result


def reliability(predicted, true, bins):
    """Rows (count, mean predicted, mean true) a bin; the means are None in an empty one."""
    rows = [[0, 0.0, 0.0] for _ in range(bins)]
    for p, t in zip(predicted, true):
        k = max(0, min(bins - 1, math.floor(p * bins)))
        rows[k] = [rows[k][0] + 1, rows[k][1] + p, rows[k][2] + t]
    return [(n, p / n, t / n) if n else (0, None, None) for n, p, t in rows]
