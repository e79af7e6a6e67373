"""How well predicted IoUs agree with true ones: correlation and reliability. Takes plain arrays, of any predictor."""

from __future__ import annotations

import numpy as np

__all__ = ["agreement", "pearson", "reliability", "spearman"]


def pearson(x, y):
    """Linear correlation of two arrays (n,). It is NaN for fewer than two pairs and for a constant array."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def spearman(x, y):
    """Correlation of the ranks of two arrays (n,); equal values share a mean rank. NaN where :func:`pearson` is NaN."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values):
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]


def reliability(predicted, true, bins=10):
    """Mean true IoU of the boxes in each bin of predicted IoU: one dict a bin, from 0 to 1.

    Args:
        predicted, true: IoUs (n,); a predicted one outside [0, 1] counts in the first or last bin.
        bins: number of bins, all of one width.

    Returns dicts with ``low`` and ``high`` (the bin's ends), ``count``, ``predicted`` and ``true`` (means; ``None`` in
    an empty bin) and ``gap``, the first minus the second. Raises ``ValueError`` for ``bins`` below 1.
    """
    if bins < 1:
        raise ValueError(f"reliability: bins must be 1 or more, got {bins}")
    predicted, true = (np.asarray(values, dtype=np.float64) for values in (predicted, true))
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, bins - 1)
    table = []
    for k in range(bins):
        inside = index == k
        means = [float(values[inside].mean()) if inside.any() else None for values in (predicted, true)]
        gap = means[0] - means[1] if inside.any() else None
        row = {"low": float(edges[k]), "high": float(edges[k + 1]), "count": int(inside.sum())}
        table.append({**row, "predicted": means[0], "true": means[1], "gap": gap})
    return table


def agreement(predicted, true, min_iou=0.5):
    """Correlation of predicted and true IoUs (n,) among boxes with a true IoU above ``min_iou``; reliability of all.

    Returns ``boxes`` (how many exceed ``min_iou``), ``pearson``, ``spearman``, ``mean_error`` (predicted minus true)
    and ``mean_absolute_error`` of those, ``pearson_all`` and ``spearman_all`` of all, and ``reliability``.
    """
    predicted, true = (np.asarray(values, dtype=np.float64) for values in (predicted, true))
    chosen = true > min_iou
    error = (predicted - true)[chosen]
    return {
        "boxes": int(chosen.sum()),
        "pearson": pearson(predicted[chosen], true[chosen]),
        "spearman": spearman(predicted[chosen], true[chosen]),
        "mean_error": float(error.mean()) if error.size else float("nan"),
        "mean_absolute_error": float(np.abs(error).mean()) if error.size else float("nan"),
        "boxes_all": len(true),
        "pearson_all": pearson(predicted, true),
        "spearman_all": spearman(predicted, true),
        "reliability": reliability(predicted, true),
    }
