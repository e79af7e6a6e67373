"""Counts at one least score: by class, by size, by image."""

import numpy as np

from .match import KINDS

__all__ = ["SIZES", "by_class", "by_image", "by_size", "kinds_of", "totals"]

SIZES = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, np.inf)}
"""Areas in pixels, of objects as annotated, of detections those of their boxes; the upper end belongs to the next."""


def kinds_of(matches, score, chosen=None):
    """``{kind: number}`` of the detections that found nothing, of all or of those ``chosen`` (D,)."""
    wrong = matches.kept(score) & (matches.kind >= 0)
    wrong = wrong if chosen is None else wrong & chosen
    counts = np.bincount(matches.kind[wrong], minlength=len(KINDS))
    return dict(zip(KINDS, counts.tolist()))


def totals(matches, score):
    """``{"objects", "found", "missed", "missed, nothing near", "false"}``.

    Nothing is near a missed object if no false detection of location or class is about it.
    """
    found, wrong = matches.found(score), matches.kept(score) & (matches.kind >= 0)
    near = np.zeros(len(found), dtype=bool)
    about = wrong & np.isin(matches.kind, [0, 1])
    near[matches.target[about & (matches.target >= 0)]] = True
    return {
        "objects": len(found), "found": int(found.sum()), "missed": int((~found).sum()),
        "missed, nothing near": int((~found & ~near).sum()), "false": int(wrong.sum()),
    }  # fmt: skip


def by_class(matches, score, names, metrics, curves):
    """A row a class: its AP (``CocoMetrics``), by size too, its best F1, and its counts at the score."""
    rows, found = [], matches.found(score)
    for k, name in enumerate(names):
        own, f1 = matches.object_label == k, curves.f1[k]
        row = {"class": name, "objects": int(own.sum()), "found": int((own & found).sum())}
        row["missed"] = row["objects"] - row["found"]
        kinds = kinds_of(matches, score, matches.label == k)
        row["false"] = sum(kinds.values())
        row.update({"AP": metrics.ap(class_index=k), "AP50": metrics.ap(50, class_index=k)})
        row.update({f"AP{area}": metrics.ap(area=area, class_index=k) for area in "sml"})
        row.update({"best F1": float(np.nanmax(f1)) if own.any() else float("nan")})
        row.update({"at score": float(curves.best_of_class[k]) if own.any() else float("nan"), **kinds})
        rows.append(row)
    return rows


def by_size(matches, score, metrics):
    """A row a size: objects by their area, false detections by the area of their boxes."""
    rows, found, areas = [], matches.found(score), matches.box[:, 2] * matches.box[:, 3]
    for suffix, (low, high) in SIZES.items():
        own = (matches.object_area >= low) & (matches.object_area < high)
        kinds = kinds_of(matches, score, (areas >= low) & (areas < high))
        row = {"size": suffix, "objects": int(own.sum()), "found": int((own & found).sum())}
        rows.append({**row, "missed": row["objects"] - row["found"], "false": sum(kinds.values()),
                     "AP": metrics.ap(area=suffix), **kinds})  # fmt: skip
    return rows


def by_image(matches, score, ground_truth):
    """A row an image: its file, objects, found, missed, false; in the order of the images."""
    number = len(ground_truth.images)
    found = matches.found(score)
    wrong = matches.kept(score) & (matches.kind >= 0)
    objects = np.bincount(matches.object_image, minlength=number)
    hits = np.bincount(matches.object_image[found], minlength=number)
    false = np.bincount(matches.image[wrong], minlength=number)
    return [
        {"image": ground_truth.image_ids[k], "file": str(ground_truth.images[k]["file_name"]), "objects": int(o),
         "found": int(h), "missed": int(o - h), "false": int(f)}
        for k, (o, h, f) in enumerate(zip(objects, hits, false))
    ]  # fmt: skip
