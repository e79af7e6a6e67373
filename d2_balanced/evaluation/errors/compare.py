"""Two evaluations of one data set, object by object and image by image: ``compared.html`` and ``images.csv``."""

import os

import numpy as np

from ...utils.errors import DataError
from ...utils.page import write_page
from ..write_results import csv_text, write_text
from .pictures import paint
from .tally import by_image, kinds_of, totals
from .write import painter_of

__all__ = ["COMPARED", "require_same_data", "write_comparison"]

COMPARED = "compared.html"
PICTURES = 8


def require_same_data(first, second):
    """Raise ``DataError`` unless two :class:`Mistakes` are of the same images, classes and objects."""
    one, other = first.ground_truth, second.ground_truth
    for what, of in (
        ("images", lambda truth: truth.image_ids), ("classes", lambda truth: (truth.category_ids, truth.class_names)),
        ("objects", lambda truth: [(a["image_id"], a["category_id"], a["bbox"]) for a in truth.annotations]),
    ):  # fmt: skip
        if of(one) != of(other):
            raise DataError(
                f"The two evaluations have different {what} ({one.name!r}, {other.name!r}): they cannot be compared image "
                "by image. Evaluate one of them on the data of the other: d2_balanced eval --val-json ... --val-images ..."
            )


def write_comparison(folder, first, second, titles, pictures=PICTURES):
    """Write the files into ``folder``; returns the page's path.

    Args:
        first, second: :class:`Mistakes`; each counts from its own score on.
        titles: of the two.
        pictures: images of each of two kinds, with fewer and with more mistakes in the second.

    Raises ``DataError`` as :func:`require_same_data`.
    """
    require_same_data(first, second)
    rows = _image_rows(first, second)
    write_text(os.path.join(folder, "images.csv"), csv_text(list(rows[0]) if rows else [], [list(r.values()) for r in rows]))
    change = np.array([row["change"] for row in rows], dtype=int)
    best_first, worst_first = (np.argsort(sign * change, kind="stable") for sign in (1, -1))
    path = os.path.join(folder, COMPARED)
    write_page(
        path, os.path.join(os.path.dirname(__file__), "compared.html"), titles=titles, images=len(rows),
        scores=[run.score for run in (first, second)],
        totals=[totals(run.matches, run.score) for run in (first, second)],
        kinds=[kinds_of(run.matches, run.score) for run in (first, second)],
        classes=_class_rows(first, second), fewer=int((change < 0).sum()), more=int((change > 0).sum()),
        groups=[
            ("Fewer mistakes in the second", _pictures(first, second, rows, [k for k in best_first if change[k] < 0][:pictures])),
            ("More mistakes in the second", _pictures(first, second, rows, [k for k in worst_first if change[k] > 0][:pictures])),
        ],
    )  # fmt: skip
    return path


def _image_rows(first, second):
    rows = []
    for one, other in zip(*(by_image(run.matches, run.score, run.ground_truth) for run in (first, second))):
        counts = {f"{key} {number}": row[key] for number, row in ((1, one), (2, other)) for key in ("missed", "false")}
        change = other["missed"] + other["false"] - one["missed"] - one["false"]
        rows.append({**{key: one[key] for key in ("image", "file", "objects")}, **counts, "change": change})
    return rows


def _class_rows(first, second):
    """A row a class, and all: AP of both, and which objects were found by both, by one of them, by none."""
    one, other = (run.matches.found(run.score) for run in (first, second))
    labels = first.matches.object_label
    rows = []
    for k, name in [*enumerate(first.names), (None, "all")]:
        own = np.ones(len(labels), dtype=bool) if k is None else labels == k
        rows.append({
            "class": name, "AP 1": first.metrics.ap(class_index=k), "AP 2": second.metrics.ap(class_index=k),
            "objects": int(own.sum()), "found by both": int((own & one & other).sum()),
            "by 1 only": int((own & one & ~other).sum()), "by 2 only": int((own & ~one & other).sum()),
            "by none": int((own & ~one & ~other).sum()),
        })  # fmt: skip
    return rows


def _pictures(first, second, rows, images):
    painter, shown = painter_of(first), []
    for image in map(int, images):
        row = rows[image]
        titles = [f"{number}: {row[f'missed {number}']} missed, {row[f'false {number}']} false" for number in (1, 2)]
        runs = [(first.matches, first.score), (second.matches, second.score)]
        source, problem = paint(painter, image, *runs, titles=titles)
        shown.append({**row, "source": source, "problem": problem})
    return shown
