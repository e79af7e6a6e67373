"""Plots of how good proposals are, and of how that changes in training, for any detector (Dynamic R-CNN, figures 1, 2).

As in ``imbalance_figures.py``, every function takes ``{run: Recording}`` and returns the figure, or ``None``.
"""

from __future__ import annotations

import numpy as np

from ..recording.counts import BEST_ERROR, BEST_IOU, IOU_BINS
from .curves import over_time, spans
from .panels import curve_figure, density_figure, share

__all__ = ["draw_positives_by_threshold", "draw_proposal_quality", "draw_regression_targets", "draw_targets"]

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
_OFFSETS = {"x": "dx", "y": "dy", "w": "dw", "h": "dh"}


def draw_positives_by_threshold(recordings):
    """Proposals above several IoU thresholds, and the spread of their regression targets, by iteration (figure 1a)."""
    counts = _by_threshold(recordings, lambda f, t: share(_above(f, "proposal_ious", t), f["images"])[0])
    panels = [("proposals above an IoU threshold", "iteration", "proposals an image", counts, {"yscale": "log"})]
    for name in "xw":
        curves = _by_threshold(recordings, lambda f, t, name=name: _spread(f, name, t))
        title = f"standard deviation of the target {_OFFSETS[name]}"
        panels.append((title, "iteration", "in units of the proposal", curves))
    return _unless_empty(recordings, "Positives at fixed IoU thresholds (appended ground truth left out)", panels)


def draw_proposal_quality(recordings):
    """IoU and error of the proposals of the ranks that Dynamic R-CNN looks at (figure 1b)."""

    def mean(field):
        return over_time(recordings, lambda f: share(f[field], f["images"] - f["images_by_objects"][0])[0])

    panels = [
        (f"the {BEST_IOU}th best proposal by IoU", "iteration", "its IoU", mean("best_iou_sum")),
        (f"the {BEST_ERROR}th best by error", "iteration", "mean of |dx| and |dy|, normalised", mean("best_error_sum")),
    ]
    return _unless_empty(recordings, "How good proposals are, mean over images with objects", panels)


def draw_regression_targets(recordings):
    """Mean and standard deviation of the regression targets by IoU, in each quarter of the recording (figure 2)."""
    panels = []
    for name, label in _OFFSETS.items():
        curves = {}
        for run, recording in recordings.items():
            prefix = f"{run}, " if len(recordings) > 1 else ""
            for first, last, merged in spans(recording):
                fields = merged[min(merged)]
                spreads = np.array([_spread(fields, name, t) for t in _THRESHOLDS])
                curves[f"{prefix}iterations {first} to {last}"] = np.array(_THRESHOLDS), spreads
        panels.append((label, "IoU threshold", "standard deviation of the target", curves))
    return _unless_empty(recordings, "Regression targets of positives, by time", panels, ordered=True)


def draw_targets(points):
    """Regression targets of single proposals (figure 2), or ``None`` without any.

    Args:
        points: array (n, 5): IoU, then the targets dx, dy, dw, dh in units of the proposal.
    """
    panels = []
    for threshold in _THRESHOLDS[:3]:
        chosen = points[points[:, 0] >= threshold]
        for first, second in ((1, 2), (3, 4)):
            x, y = chosen[:, first], chosen[:, second]
            spread = f"{x.std():.3f}, {y.std():.3f}" if len(chosen) else "-"
            name = "dx, dy" if first == 1 else "dw, dh"
            panels.append((f"{name}, IoU >= {threshold:g}: {spread}", x, y))
    if not len(points):
        return None
    limits = (-0.6, 0.6)
    title = "Regression targets of proposals (standard deviations above each panel)"
    return density_figure(title, panels, "", "", limits, limits, diagonal=False)


def _by_threshold(recordings, value):
    """``{label: (iterations, values)}`` of ``value(fields, threshold)`` in the first stage, by threshold."""
    curves = {}
    for threshold in _THRESHOLDS:
        firsts = {run: _first_stage(recording) for run, recording in recordings.items()}
        found = over_time(firsts, lambda f, t=threshold: value(f, t))
        for label, xy in found.items():
            curves[f"{label}, {threshold:g}" if len(recordings) > 1 else f"IoU {threshold:g}"] = xy
    return curves


def _first_stage(recording):
    """The recording with the first stage's first branch only: the proposals are those of all branches."""
    windows = [(first, last, {min(counts): counts[min(counts)]}) for first, last, counts in recording.windows]
    return recording._replace(windows=windows)


def _above(fields, name, threshold):
    return fields[name][round(threshold * IOU_BINS) :].sum()


def _spread(fields, name, threshold):
    """Standard deviation of a target among proposals of at least this IoU; NaN without any."""
    number = _above(fields, "proposal_ious", threshold)
    mean = share(_above(fields, f"target_{name}", threshold), number)
    squares = share(_above(fields, f"target_{name}_squares", threshold), number)
    return float(np.sqrt(np.maximum(squares - mean**2, 0)))


def _unless_empty(recordings, title, panels, **options):
    """The figure; ``None`` for recordings of before there was anything of this in them."""
    windows = [counts for recording in recordings.values() for _, _, counts in recording.windows]
    anything = any(fields["best_error_sum"].any() for counts in windows for fields in counts.values())
    return curve_figure(title, panels, **options) if anything else None
