"""Checks of boxes and of what they are distributed over."""

import numpy as np

__all__ = ["check_boxes", "check_sizes", "summarize", "TOLERATED_SHARE"]

TOLERATED_SHARE = 1e-3
"""Faults that detectron2 survives (it drops such boxes in training) are warnings up to this share of all annotations:
COCO itself has a few boxes without area. Beyond it they are errors: a converter went wrong."""

OUTSIDE_PIXELS = 1.0  # rounding of converters
GUESS_SHARE = 0.99
MANY_OBJECTS = 100  # detectron2's and COCO's default limit of detections an image


def check_sizes(table, report):
    """Every image needs a positive width and height."""
    rows = np.flatnonzero(~(np.isfinite(table.sizes) & (table.sizes > 0)).all(1))
    if len(rows):
        report.error(f"{len(rows)} image(s) without a positive 'width' and 'height'",
                     [table.image_place(row) for row in rows])


def check_boxes(table, report):
    """Finite numbers, positive sizes, inside the image, and in the format they claim to be in."""
    boxes = table.boxes
    finite = np.isfinite(boxes).all(1)
    if not finite.all():
        report.error(f"{int((~finite).sum())} box(es) that are not four finite numbers", table.places(~finite),
                     "Boxes are [x, y, width, height] in pixels.")
    limits = table.box_image_sizes()
    known = finite & np.isfinite(limits).all(1)
    if _looks_like_corners(boxes[known], limits[known]):
        report.error("the boxes look like [x1, y1, x2, y2]", table.places(known & _beyond(boxes, limits)),
                     "COCO's are [x, y, width, height]: x + width lies outside of the image for many of them.")
        return
    if _looks_relative(boxes[known], limits[known]):
        report.error("the boxes look relative to the image's size (all numbers are between 0 and 1)",
                     table.places(known), "COCO's are in pixels.")
        return
    _check_extent(table, finite, known, limits, report)


def _check_extent(table, finite, known, limits, report):
    x, y, width, height = table.boxes.T
    negative = finite & ((width < 0) | (height < 0))
    if negative.any():
        report.error(f"{int(negative.sum())} box(es) with negative width or height", table.places(negative))
    zero = finite & ~negative & ((width == 0) | (height == 0))
    _tolerate(table, report, zero, "box(es) with zero width or height", "They are left out of training.")
    outside = known & ~negative & ((x >= limits[:, 0]) | (y >= limits[:, 1]) | (x + width <= 0) | (y + height <= 0))
    outside &= ~zero
    _tolerate(table, report, outside, "box(es) wholly outside of their image", "They are left out of training.")
    partly = known & ~outside & ~negative & ~zero & _beyond(table.boxes, limits)
    if partly.any():
        report.warn(f"{int(partly.sum())} box(es) reach outside of their image", table.places(partly),
                    "They are clipped in training.")


def _tolerate(table, report, rows, what, advice):
    if rows.any():
        say = report.warn if rows.sum() <= TOLERATED_SHARE * len(table) else report.error
        say(f"{int(rows.sum())} {what}", table.places(rows), advice)


def _beyond(boxes, limits):
    """(A,) which boxes, read as x, y, width, height, reach over an edge of the image by more than rounding."""
    with np.errstate(invalid="ignore"):
        return (boxes[:, :2] < -OUTSIDE_PIXELS).any(1) | (boxes[:, :2] + boxes[:, 2:] > limits + OUTSIDE_PIXELS).any(1)


def _looks_like_corners(boxes, limits):
    if not len(boxes):
        return False
    as_corners = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= limits + OUTSIDE_PIXELS).all(1)
    # That width > x and height > y for nearly every box happens only when they are x2 and y2.
    return as_corners.mean() >= GUESS_SHARE and _beyond(boxes, limits).mean() >= 0.1


def _looks_relative(boxes, limits):
    return len(boxes) > 0 and bool(boxes.max() <= 1 and boxes.min() >= 0 and limits.min() > 16)


def summarize(table, report):
    """Counts for the summary, and warnings about what is legal but rarely meant."""
    ordinary = ~table.crowd & (table.image_rows >= 0) & (table.class_rows >= 0)
    per_image = np.bincount(table.image_rows[ordinary], minlength=len(table.image_ids))
    per_class = np.bincount(table.class_rows[ordinary], minlength=len(table.class_names))
    summary = report.summary
    summary["images"], summary["annotations"] = len(table.image_ids), len(table)
    summary["crowd_annotations"] = int(table.crowd.sum())
    summary["images_without_objects"] = int((per_image == 0).sum())
    if len(per_image):
        summary["objects_an_image"] = {"min": int(per_image.min()), "mean": round(float(per_image.mean()), 1),
                                       "median": float(np.median(per_image)), "max": int(per_image.max())}
    summary["per_class"] = {name: int(n) for name, n in zip(table.class_names, per_class)}
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
        report.warn(f"{int((per_image == 0).sum())} image(s) without objects", _image_places(table, per_image == 0),
                    "They train the background only if DATALOADER.FILTER_EMPTY_ANNOTATIONS is False.")
    empty = [name for name, count in zip(table.class_names, per_class) if not count]
    if empty and per_class.any():
        report.warn(f"{len(empty)} class(es) without objects", empty, "Their AP is not defined.")
    many = per_image > MANY_OBJECTS
    if many.any():
        report.warn(f"{int(many.sum())} image(s) with more than {MANY_OBJECTS} objects", _image_places(table, many),
                    "Raise TEST.DETECTIONS_PER_IMAGE to find them all.")


def _image_places(table, rows):
    return [table.image_place(row) if k < 10 else "" for k, row in enumerate(np.flatnonzero(rows))]


def _warn_about_doubles(table, report):
    """The same class and box twice in an image; crowd regions and broken boxes left out."""
    usable = np.flatnonzero(~table.crowd & np.isfinite(table.boxes).all(1) & (table.image_rows >= 0))
    if len(usable) < 2:
        return
    rows = np.column_stack([table.image_rows[usable], table.class_rows[usable], table.boxes[usable]])
    order = np.lexsort(rows.T)
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    if same.any():
        report.warn(f"{int(same.sum())} box(es) that are annotated twice", table.places(usable[order[1:][same]]))
