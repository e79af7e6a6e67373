"""CrowdHuman's Jaccard index (JI): how well the set of boxes above a score fits the set of people."""

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["SCORE_THRESHOLDS", "jaccard_index"]

SCORE_THRESHOLDS = tuple(0.1 * step for step in range(10))
_MIN_OVERLAP = 0.5


def jaccard_index(images):
    """The JI at each score threshold 0, 0.1, .. 0.9.

    At a threshold, the boxes scored above it are paired with the people so that the sum of IoU is greatest (only
    pairs of IoU > 0.5). Boxes and people without partner that lie to more than half in an ignore region are dropped.
    With k pairs, m people and n boxes left, the image's index is k / (m + n - k).

    Args:
        images: list of :class:`crowdhuman.ImageOverlaps`.

    Returns:
        list of dicts ``{score_thr, JI, k, m, n}``; JI is the mean over images with people or boxes left (NaN if there
        is none), k, m and n are lists over the images.
    """
    return [_at_threshold(images, threshold) for threshold in SCORE_THRESHOLDS]


def _at_threshold(images, threshold):
    counts = [_pairs_people_boxes(image, image.scores > threshold) for image in images]
    indices = [k / (m + n - k + 1e-6) for k, m, n in counts if m or n]
    k, m, n = zip(*counts) if counts else ((), (), ())
    mean = float(np.mean(indices)) if indices else float("nan")
    return {"score_thr": threshold, "JI": mean, "k": list(k), "m": list(m), "n": list(n)}


def _pairs_people_boxes(image, chosen):
    """(k, m, n) of one image with the chosen boxes ((N,) bool)."""
    weights = image.iou[chosen]
    weights = np.where(weights > _MIN_OVERLAP, weights, 0.0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    paired = weights[rows, columns] > 0
    box_paired = np.zeros(weights.shape[0], dtype=bool)
    person_paired = np.zeros(weights.shape[1], dtype=bool)
    box_paired[rows[paired]] = person_paired[columns[paired]] = True
    boxes = box_paired | ~image.det_in_ignore[chosen]
    people = person_paired | ~image.person_in_ignore
    return int(paired.sum()), int(people.sum()), int(boxes.sum())
