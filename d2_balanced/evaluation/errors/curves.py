"""Precision, recall and F1 of every class as functions of the least score that counts."""

from typing import NamedTuple

import numpy as np

__all__ = ["ScoreCurves", "score_curves"]

SCORES = np.round(np.linspace(0, 1, 101), 2)


class ScoreCurves(NamedTuple):
    """(K, 101) by class and score 0.00, 0.01, .. 1.00; NaN for a class without objects.

    Precision is NaN where nothing is found. ``best`` is the score with the highest mean F1 (the lowest of equals), and
    ``best_of_class`` (K,) that of each class; 0 where there are no objects.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    best: float
    best_of_class: np.ndarray


def score_curves(matches, num_classes):
    """The :class:`ScoreCurves` of ``match``'s result."""
    right, wrong = matches.kind < 0, matches.kind >= 0
    true = _at_least(matches, right, num_classes)
    false = _at_least(matches, wrong, num_classes)
    objects = np.bincount(matches.object_label, minlength=num_classes).astype(float)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(objects > 0, true / (true + false), np.nan)
        recall = true / np.where(objects > 0, objects, np.nan)
        f1 = np.where(objects > 0, 2 * true / (true + false + objects), np.nan)
    known = ~np.isnan(f1[:, 0]) if num_classes else np.zeros(0, dtype=bool)
    mean = f1[known].mean(0) if known.any() else np.zeros(len(SCORES))
    of_class = SCORES[np.where(known[:, None], f1, 0).argmax(1)] if num_classes else np.zeros(0)
    return ScoreCurves(SCORES, precision, recall, f1, float(SCORES[mean.argmax()]), of_class)


def _at_least(matches, chosen, num_classes):
    """(K, 101) how many of the chosen detections of a class have that score or more."""
    counts = np.zeros((num_classes, len(SCORES)))
    for k in range(num_classes):
        scores = np.sort(matches.score[chosen & (matches.label == k)])
        counts[k] = len(scores) - np.searchsorted(scores, SCORES, side="left")
    return counts
