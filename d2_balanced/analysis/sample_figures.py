"""Plots of samples: their IoUs as training goes on, their gradients, how many an object has, and predicted IoUs.

As in ``imbalance_figures.py``, every function takes ``{run: Recording}`` and returns the figure, or ``None``.
"""

from __future__ import annotations

import numpy as np

from ..recording.counts import MAX_POSITIVES
from .curves import bin_centres, curves_of, means_by_bin, shares_by_bin, spans
from .panels import curve_figure

__all__ = ["draw_gradients_by_iou", "draw_iou_by_time", "draw_positives_per_object", "draw_predicted_iou"]


def draw_iou_by_time(recordings):
    """Proposals, sampled positives and negatives of the first stage by IoU, a curve for each quarter."""
    panels = []
    fields = {"proposals": "proposal_ious", "sampled positives": "positive_ious", "sampled negatives": "negative_ious"}
    for name, field in fields.items():
        curves = {}
        for run, recording in recordings.items():
            prefix = f"{run}, " if len(recordings) > 1 else ""
            for first, last, merged in spans(recording):
                of_span = merged[min(merged)]  # the first branch: the proposals are those of all
                numbers = of_span[field] / max(of_span["images"].sum(), 1)
                curves[f"{prefix}iterations {first} to {last}"] = bin_centres(numbers), numbers
        options = {"xlim": (0.4, 1)} if field == "positive_ious" else {"yscale": "log"}
        panels.append((name, "IoU with the best object", "number an image", curves, options))
    return curve_figure("IoU of proposals and samples in the first stage, by time", panels, steps=True, ordered=True)


def draw_gradients_by_iou(recordings):
    """How the gradients of logits and of deltas are shared out over IoU."""
    classes, boxes = shares_by_bin(recordings, "cls_gradient"), shares_by_bin(recordings, "box_gradient", above=0.4)
    x_label, y_label = "IoU of the sample", "share of the gradient"
    return curve_figure(
        "Which samples the gradient comes from (appended ground truth left out)",
        [
            ("classification, with respect to logits", x_label, y_label, classes, {"yscale": "log"}),
            ("box regression, with respect to deltas", x_label, y_label, boxes),
        ],
        steps=True,
    )


def draw_positives_per_object(recordings):
    """Histogram over objects: how many positive proposals an object has, and how many positives in the minibatch."""

    def shares(field):
        def of(f):
            return (np.arange(len(f[field])), f[field] / f[field].sum()) if f[field].sum() else None

        return curves_of(recordings, of)

    y_label, more, options = "share of the objects", f"({MAX_POSITIVES}: or more)", {"whole": True}
    labeled, sampled = shares("objects_by_positives"), shares("objects_by_samples")
    return curve_figure(
        "Positives of an object (appended ground truth left out)",
        [
            ("all proposals", f"positive proposals {more}", y_label, labeled, options),
            ("the minibatch", f"sampled positives {more}", y_label, sampled, options),
        ],
        steps=True,
    )


def draw_predicted_iou(recordings):
    """Mean true IoU of the samples in each bin of predicted IoU, and the number of samples in it."""
    curves = means_by_bin(recordings, "predicted_ious", "predicted_iou_sum", "predicted_iou_true_sum")
    counts = shares_by_bin(recordings, "predicted_ious")
    if not curves:
        return None
    return curve_figure(
        "Predicted IoU of the samples, in training",
        [
            ("reliability", "predicted IoU", "mean true IoU", curves, {"diagonal": (0, 1)}),
            ("how often", "predicted IoU", "share of the samples", counts),
        ],
    )
