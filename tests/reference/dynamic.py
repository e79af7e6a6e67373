"""Dynamic R-CNN, one number at a time: the statistics of a batch and the trajectory of threshold and beta.

A batch is a list of images; an image is None (no GT) or a list of rows ``(iou, error, is_gt)``.
"""

import math

NOTHING = math.nan


def kth(values, k):
    """The ``k``-th of an already sorted list, the last one if there are fewer, NaN if there is none."""
    return values[min(k, len(values)) - 1] if values else NOTHING


def iou_statistic(batch, k, scope):
    """Authors (``batch``): the (k * images)-th largest of the batch; mmdetection (``image``): mean of the k-th ones."""
    images = [sorted((iou for iou, _, _ in image), reverse=True) for image in batch]
    if scope == "batch":
        return kth(sorted(sum(images, []), reverse=True), k * len(batch))
    return sum(kth(image, k) for image in images) / len(images)


def error_statistic(batch, k, scope, threshold):
    """The (k * images)-th smallest error of all rows (``batch``) or of the positives (``image``)."""
    rows = [row for image in batch for row in image]
    if scope == "image":
        rows = [row for row in rows if row[0] >= threshold]
    return kth(sorted(error for _, error, _ in rows), k * len(batch))


def upper_median(values):
    return sorted(values)[len(values) // 2]


def middle_median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def trajectory(batches, k_iou, k_error, period, scope, threshold=0.4, beta=1.0):
    """Per batch ``(threshold in force, beta in force, iou_statistic, error_statistic)``, and the final two values.

    A batch with a GT-less image records nothing. ``batch`` updates every ``period`` iterations, unless the last of them
    recorded nothing; ``image`` after ``period`` batches that recorded. All batches that recorded since the last update
    count. A median error of zero changes nothing.
    """
    low, high, records, steps = threshold, beta, [], []
    for iteration, batch in enumerate(batches):
        counted = all(image is not None for image in batch)
        iou = iou_statistic(batch, k_iou, scope) if counted else NOTHING
        error = error_statistic(batch, k_error, scope, threshold) if counted else NOTHING
        steps.append((threshold, beta, iou, error))
        records = records + [(iou, error)] * counted
        if counted and (iteration + 1) % period == 0 if scope == "batch" else len(records) == period:
            ious, errors = ([value for value in values if not math.isnan(value)] for values in zip(*records))
            threshold = max(sum(ious) / len(ious), low) if ious else threshold
            median = upper_median if scope == "batch" else middle_median
            beta = min(median(errors), high) if errors and median(errors) > 0 else beta
            records = []
    return steps, (threshold, beta)
