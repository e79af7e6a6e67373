"""Curves as points of an SVG, which the page's template draws."""

import numpy as np

from ...utils.drawing import class_color

__all__ = ["f1_plot", "precision_recall_plot", "shown_classes"]

_MOST = 10  # curves beside the mean
_RECALLS = np.linspace(0, 1, 101)


def shown_classes(metrics):
    """The classes that get a curve: all that have objects, of many the ten with the lowest AP."""
    ap = np.array([metrics.ap(class_index=k) for k in range(metrics.precision.shape[2])])
    known = np.flatnonzero(~np.isnan(ap))
    return known if len(known) <= _MOST else np.sort(known[np.argsort(ap[known], kind="stable")[:_MOST]])


def precision_recall_plot(metrics, names, classes):
    """COCO's interpolated precision over recall, at IoU 0.5 and all sizes; beside each name its AP50."""
    precision = metrics.precision[0, :, :, 0, -1]  # (101, K)
    known = precision[:, (precision > -1).all(axis=0)]
    lines = [_line(names[k], _colour(k), _RECALLS, precision[:, k], f"{metrics.ap(50, class_index=k):.1f}") for k in classes]
    if known.shape[1] > 1:
        lines.append(_line("mean", "#1c2430", _RECALLS, known.mean(1), f"{metrics.ap(50):.1f}", mean=True))
    return {"title": "Precision over recall, IoU 0.5", "x": "recall", "y": "precision", "lines": lines, "value": "AP50"}


def f1_plot(curves, names, classes):
    """F1 over the least score that counts; beside each name the score of its best F1."""
    lines = [_line(names[k], _colour(k), curves.scores, curves.f1[k],
                   f"{np.nanmax(curves.f1[k]):.2f} at {curves.best_of_class[k]:.2f}") for k in classes]  # fmt: skip
    known = curves.f1[~np.isnan(curves.f1).all(axis=1)]
    if len(known) > 1:
        mean = known.mean(0)
        lines.append(_line("mean", "#1c2430", curves.scores, mean, f"{mean.max():.2f} at {curves.best:.2f}", mean=True))
    return {"title": "F1 over the least score, IoU 0.5", "x": "score", "y": "F1", "lines": lines, "value": "best"}


def _colour(k):
    return "#" + "".join(f"{int(0.75 * channel):02x}" for channel in class_color(int(k)))


def _line(name, colour, x, y, value, mean=False):
    """Points in a square of 100 units, whose y runs down."""
    points = " ".join(f"{100 * a:.1f},{100 - 100 * b:.1f}" for a, b in zip(x, y) if b > -1)  # no NaN either
    return {"name": name, "colour": colour, "points": points, "value": value, "mean": mean}
