"""Files and page of the mistakes in an evaluation: ``<folder>/errors.html`` and tables beside it."""

import json
import os
from typing import Any, Dict, NamedTuple

import numpy as np

from ...data.class_names import distinct_names
from ...utils.errors import InstallError
from ...utils.fonts import names_to_draw
from ...utils.page import write_page
from ..write_results import csv_text, without_nan, write_text
from .curves import ScoreCurves, score_curves
from .extras import confusion_matrix, tide_errors
from .match import KINDS, Matches, match
from .pictures import Painter, paint, worst
from .plot import f1_plot, precision_recall_plot, shown_classes
from .tally import by_class, by_image, by_size, kinds_of, totals

__all__ = ["FOLDER", "PAGE", "Mistakes", "find_mistakes", "painter_of", "write_mistakes"]

FOLDER, PAGE = "errors", "errors.html"
PICTURES = 12
_LARGEST_MATRIX = 25  # classes; of more the page has the pairs that are mixed up most
_PAIRS = 20
_NOTHING = "(nothing)"


class Mistakes(NamedTuple):
    """An evaluation's boxes, matched and counted; ``score`` is the least score that counts."""

    ground_truth: Any
    names: list
    matches: Matches
    curves: ScoreCurves
    metrics: Any
    score: float


def find_mistakes(ground_truth, detections, metrics, score=None):
    """The :class:`Mistakes` of boxes with internal ids.

    Args:
        metrics: ``CocoMetrics`` of the same boxes.
        score: the least score that counts; None: the one with the best mean F1.
    """
    matches = match(ground_truth, detections)
    curves = score_curves(matches, len(ground_truth.class_names))
    names = distinct_names(ground_truth.class_names, ground_truth.category_ids)
    return Mistakes(ground_truth, names, matches, curves, metrics, curves.best if score is None else score)


def painter_of(mistakes):
    """The :class:`Painter` of the data set's images."""
    ids = [f"id {category}" for category in mistakes.ground_truth.category_ids]
    return Painter(mistakes.ground_truth.image_path, names_to_draw(mistakes.names, ids))


def write_mistakes(folder, mistakes, detections, title, pictures=PICTURES):
    """Write ``errors.html``, ``errors.json`` and the tables into ``folder``; returns the page's path.

    ``images.csv``, ``per_class.csv``, ``per_size.csv``, ``score_curves.csv``, and ``confusion.csv`` where there is
    ``supervision``. What is missing is said on the page. With a broken picture the page says why it is not shown.
    """
    m, truth = mistakes, mistakes.ground_truth
    rows = {
        "per_class": by_class(m.matches, m.score, m.names, m.metrics, m.curves),
        "per_size": by_size(m.matches, m.score, m.metrics), "images": by_image(m.matches, m.score, truth),
    }  # fmt: skip
    for name, of_table in rows.items():
        columns = list(of_table[0]) if of_table else []
        write_text(os.path.join(folder, f"{name}.csv"), csv_text(columns, [list(row.values()) for row in of_table]))
    write_text(os.path.join(folder, "score_curves.csv"), _curves_text(m))
    matrix, no_matrix = _asked(confusion_matrix, m.matches, truth, m.score)
    if matrix is not None:
        labels = [*m.names, _NOTHING]
        table = [[name, *counts] for name, counts in zip(labels, matrix.tolist())]
        write_text(os.path.join(folder, "confusion.csv"), csv_text(["object", *labels], table))
    tide, no_tide = _asked(tide_errors, truth, detections)
    about = {
        "score": m.score, "totals": totals(m.matches, m.score), "kinds": kinds_of(m.matches, m.score), "tide": tide,
        "per_class": rows["per_class"], "per_size": rows["per_size"],
    }  # fmt: skip
    write_text(os.path.join(folder, "errors.json"), json.dumps(without_nan(about), indent=1) + "\n")
    classes = shown_classes(m.metrics)
    path = os.path.join(folder, PAGE)
    write_page(
        path, os.path.join(os.path.dirname(__file__), "errors.html"), title=title, about=about, meaning=KINDS,
        images=len(truth.images), no_tide=no_tide, confusion=_confusion(matrix, m.names), no_matrix=no_matrix,
        plots=[precision_recall_plot(m.metrics, m.names, classes), f1_plot(m.curves, m.names, classes)],
        shown=len(classes), pictures=_pictures(m, rows["images"], pictures),
    )  # fmt: skip
    return path


def _asked(function, *arguments):
    """``(its result, "")``, or ``(None, what is missing)``."""
    try:
        return function(*arguments), ""
    except InstallError as error:
        return None, str(error)


def _curves_text(m):
    rows = [
        [name, score, *(float(values[k, s]) for values in (m.curves.precision, m.curves.recall, m.curves.f1))]
        for k, name in enumerate(m.names) for s, score in enumerate(m.curves.scores.tolist())
    ]  # fmt: skip
    return csv_text(["class", "score", "precision", "recall", "F1"], rows)


def _confusion(matrix, names) -> Dict[str, Any]:
    """What the page shows of the matrix: all of a small one with each cell's share of its row, else frequent pairs."""
    if matrix is None:
        return {}
    labels = [*names, _NOTHING]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(names) <= _LARGEST_MATRIX:
        cells = [[{"count": int(c), "share": float(s)} for c, s in zip(*row)] for row in zip(matrix, shares)]
        return {"labels": labels, "rows": list(zip(labels, cells))}
    mixed = matrix[:-1, :-1] * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-mixed, axis=None, kind="stable")[:_PAIRS]
    pairs = [(*divmod(int(k), len(names)), int(mixed.flat[k])) for k in order if mixed.flat[k]]
    return {"pairs": [(names[a], names[b], count) for a, b, count in pairs]}


def _pictures(m, rows, number):
    painter, shown = painter_of(m), []
    for image in worst(rows, number):
        row = rows[image]
        title = f"{row['found']} found (green), {row['missed']} missed (yellow), {row['false']} false (red)"
        source, problem = paint(painter, image, (m.matches, m.score), titles=[title])
        shown.append({**row, "source": source, "problem": problem})
    return shown
