"""Checks of boxes: finite numbers, positive sizes, inside the image, and in the format they claim to be in."""

import numpy as np

__all__ = ["check_boxes", "check_sizes", "tolerated"]

OUTSIDE_PIXELS = 1.0  # rounding of converters
FAR_OUTSIDE = 10  # in widths and heights of the image: no part of an object that the image shows is so large
LEAST_SIDE = 1e-5  # pixels; detectron2 takes narrower boxes for empty
GUESS_SHARE = 0.99


def tolerated(num_annotations):
    """How many broken boxes are left out with a warning: accidental clicks. More of them are an error, for then a
    converter went wrong. COCO itself has a few boxes without area."""
    return max(1, min(num_annotations // 50, 20), num_annotations // 1000)


def check_sizes(table, report):
    """Every image needs a positive width and height."""
    rows = ~(np.isfinite(table.sizes) & (table.sizes > 0)).all(1)
    if rows.any():
        report.error(f"{int(rows.sum())} image(s) without a positive 'width' and 'height' (whole numbers)",
                     table.image_places(rows))


def check_boxes(table, report):
    """Reports wrong formats, and marks broken boxes as left out; too many of them are an error."""
    boxes = table.boxes
    finite = np.isfinite(boxes).all(1)
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
    faults = _faults(boxes, limits, finite, known)
    broken = np.any([rows for _, rows, _ in faults], axis=0)
    _leave_out(table, faults, broken, report)
    partly = known & ~broken & _beyond(boxes, limits)
    if partly.any():
        report.warn(f"{int(partly.sum())} box(es) reach outside of their image", table.places(partly),
                    "They are clipped in training.")


def _faults(boxes, limits, finite, known):
    """[(what is wrong, (A,) which boxes, whether detectron2 itself leaves them out)]; a box has one fault at most."""
    x, y, width, height = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        negative = finite & ((width < 0) | (height < 0))
        zero = finite & ~negative & ((width < LEAST_SIDE) | (height < LEAST_SIDE))
        sound = known & ~negative & ~zero
        outside = sound & ((x >= limits[:, 0]) | (y >= limits[:, 1]) | (x + width <= 0) | (y + height <= 0))
        low, high, reach = boxes[:, :2], boxes[:, :2] + boxes[:, 2:], FAR_OUTSIDE * limits
        far = sound & ~outside & ((low < -reach).any(1) | (high > limits + reach).any(1))
    return [
        ("box(es) that are not four finite numbers, x, y, width, height in pixels", ~finite, False),
        ("box(es) with negative width or height", negative, False),
        ("box(es) with zero width or height", zero, True),
        ("box(es) wholly outside of their image", outside, True),
        (f"box(es) that reach more than {FAR_OUTSIDE} image sizes outside of their image", far, False),
    ]


def _leave_out(table, faults, broken, report):
    from_file = table.records is not None  # otherwise a function loads them, which this package does not read for
    most = tolerated(len(table))
    for what, rows, survived in faults:
        if not rows.any():
            continue
        what = f"{int(rows.sum())} {what}"
        if not from_file and not survived:
            report.error(what, table.places(rows), "The function that loads the data set has to leave them out.")
        elif broken.sum() <= most and broken.sum() < len(table):
            report.warn(what, table.places(rows),
                        f"They are left out of training{' and of evaluation' if from_file else ''}.")
        else:
            report.error(what, table.places(rows), f"Mend or delete them: up to {most} broken ones of {len(table)} "
                         "are left out with a warning, so many look like an error of a converter.")
        if from_file and not survived:
            report.repair("broken boxes")
    if from_file:
        table.left_out |= broken


def _beyond(boxes, limits):
    """(A,) which boxes, read as x, y, width, height, reach over an edge of the image by more than rounding."""
    with np.errstate(invalid="ignore", over="ignore"):
        return (boxes[:, :2] < -OUTSIDE_PIXELS).any(1) | (boxes[:, :2] + boxes[:, 2:] > limits + OUTSIDE_PIXELS).any(1)


def _looks_like_corners(boxes, limits):
    if not len(boxes):
        return False
    as_corners = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= limits + OUTSIDE_PIXELS).all(1)
    # That width > x and height > y for nearly every box happens only when they are x2 and y2.
    return as_corners.mean() >= GUESS_SHARE and _beyond(boxes, limits).mean() >= 0.1


def _looks_relative(boxes, limits):
    return len(boxes) > 0 and bool(boxes.max() <= 1 and boxes.min() >= 0 and limits.min() > 16)
