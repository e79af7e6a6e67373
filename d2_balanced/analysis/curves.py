"""From recordings (``{name of the run: Recording}``) to labelled curves, one for every run, stage and branch."""

from __future__ import annotations

import numpy as np

from ..recording.file import merge

__all__ = ["bin_centres", "curves_of", "histograms", "means_by_bin", "over_time", "parts_of", "shares_by_bin", "spans"]


def curves_of(recordings, x_and_y):
    """``{label: (x, y)}`` of ``x_and_y(fields of the whole recording)``, which returns ``None`` for no curve."""
    curves = {}
    for run, recording in recordings.items():
        merged = merge(recording.windows)
        for key, fields in merged.items():
            curves[_label(run, key, merged, recordings)] = x_and_y(fields)
    return {label: points for label, points in curves.items() if points is not None}


def over_time(recordings, value):
    """``{label: (last iterations, values)}`` of ``value(fields of a window)``."""
    curves = {}
    for run, recording in recordings.items():
        keys = {key for _, _, counts in recording.windows for key in counts}
        for key in sorted(keys):
            windows = [(last + 1, value(counts[key])) for _, last, counts in recording.windows if key in counts]
            curves[_label(run, key, keys, recordings)] = tuple(np.array(part, dtype=float) for part in zip(*windows))
    return curves


def histograms(recordings, field):
    """``{label: (middles of the bins, number an image)}`` of a field."""
    return curves_of(recordings, lambda f: (bin_centres(f[field]), f[field] / max(f["images"].sum(), 1)))


def shares_by_bin(recordings, field, above=0.0):
    """``{label: (middles of the bins above a value, share of the field's sum)}``. A sum of 0 gives no curve."""

    def shares(f):
        x = bin_centres(f[field])
        return (x[x > above], (f[field] / f[field].sum())[x > above]) if f[field].sum() > 0 else None

    return curves_of(recordings, shares)


def means_by_bin(recordings, number, x_sum, y_sum):
    """``{label: (mean x, mean y)}``, a point for each bin that is not empty. Its count and sums are fields."""

    def means(f):
        filled = f[number] > 0
        return tuple(f[total][filled] / f[number][filled] for total in (x_sum, y_sum)) if filled.any() else None

    return curves_of(recordings, means)


def parts_of(recording, number=4):
    """Cut the recording into at most ``number`` consecutive recordings with equally many windows."""
    parts = np.array_split(np.arange(len(recording.windows)), min(number, len(recording.windows)))
    return [recording._replace(windows=[recording.windows[k] for k in part]) for part in parts]


def spans(recording, number=4):
    """The sums over each part that :func:`parts_of` cuts: ``(first, last, {key: {field: array}})``."""
    parts = [part.windows for part in parts_of(recording, number)]
    return [(windows[0][0], windows[-1][1], merge(windows)) for windows in parts]


def bin_centres(values):
    """Middles of as many bins of [0, 1] as there are values."""
    return (np.arange(len(values)) + 0.5) / len(values)


def _label(run, key, keys, recordings):
    parts = [run] if len(recordings) > 1 else []
    parts += [f"stage {key[0]}"] if len({stage for stage, _ in keys}) > 1 else []
    parts += [f"branch {key[1]}"] if len({branch for _, branch in keys}) > 1 else []
    return ", ".join(parts) or run
