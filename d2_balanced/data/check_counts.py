"""How many objects there are, of what classes and in which images: the summary, and what is legal but rarely meant."""

import numpy as np

from .class_names import distinct_names

__all__ = ["summarize"]

MANY_OBJECTS = 100  # detectron2's and COCO's default limit of detections an image


def summarize(table, report):
    """Counts for the summary, and warnings about empty, crowded and doubly annotated images."""
    ordinary = table.ordinary()
    per_image = np.bincount(table.image_rows[ordinary], minlength=len(table.image_ids))
    per_class = np.bincount(table.class_rows[ordinary], minlength=len(table.class_names))
    summary = report.summary
    summary["images"], summary["annotations"] = len(table.image_ids), len(table)
    summary["crowd_annotations"] = int(table.crowd.sum())
    if table.left_out.any():
        summary["left_out"] = int(table.left_out.sum())
    summary["images_without_objects"] = int((per_image == 0).sum())
    if len(per_image):
        summary["objects_an_image"] = {"min": int(per_image.min()), "mean": round(float(per_image.mean()), 1),
                                       "median": float(np.median(per_image)), "max": int(per_image.max())}
    names = distinct_names(table.class_names, table.class_ids)
    summary["per_class"] = {name: int(n) for name, n in zip(names, per_class)}
    if report.repairs:
        summary["read_otherwise_than_written"] = ", ".join(report.repairs)
    _warn_about_counts(table, per_image, per_class, report)
    _warn_about_doubles(table, report)


def _warn_about_counts(table, per_image, per_class, report):
    if not len(per_image):
        report.error("there are no images")
    elif not table.annotated:
        report.warn("there are no annotations", advice="It can be predicted on, but neither trained nor evaluated.")
    elif not per_image.any():
        report.error("there is no object in any image (crowd regions do not count)")
    elif (per_image == 0).any():
        report.warn(f"{int((per_image == 0).sum())} image(s) without objects", table.image_places(per_image == 0),
                    "They train the background only if DATALOADER.FILTER_EMPTY_ANNOTATIONS is False.")
    empty = [name for name, count in zip(table.class_names, per_class) if not count]
    if empty and per_class.any():
        report.warn(f"{len(empty)} class(es) without objects", empty, "Their AP is not defined.")
    many = per_image > MANY_OBJECTS
    if many.any():
        report.warn(f"{int(many.sum())} image(s) with more than {MANY_OBJECTS} objects", table.image_places(many),
                    "Raise TEST.DETECTIONS_PER_IMAGE to find them all.")


def _warn_about_doubles(table, report):
    """The same class and box twice in an image; crowd regions and broken boxes left out."""
    usable = np.flatnonzero(table.ordinary() & np.isfinite(table.boxes).all(1))
    if len(usable) < 2:
        return
    rows = np.column_stack([table.image_rows[usable], table.class_rows[usable], table.boxes[usable]])
    order = np.lexsort(rows.T)
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    if same.any():
        report.warn(f"{int(same.sum())} box(es) that are annotated twice", table.places(usable[order[1:][same]]))
