"""Checks of segmentations: polygons and run-length encodings."""

import itertools

import numpy as np

from .check_boxes import TOLERATED_SHARE

__all__ = ["check_masks", "rle_length"]

MIN_OVERLAP = 0.5  # IoU of a polygon's extent with the annotation's box


def check_masks(table, report, mask_format=None):
    """Valid polygons and encodings that belong to their box and image.

    Args:
        mask_format: what the model trains masks from (``INPUT.MASK_FORMAT``: "polygon" or "bitmask"); None if it does
            not, and then masks may be missing.
    """
    kinds = np.array([_kind(segmentation) for segmentation in table.segmentations], dtype="U8")
    report.summary["masks"] = {kind: int((kinds == kind).sum()) for kind in ("polygons", "rle", "none")}
    wrong = kinds == "invalid"
    if wrong.any():
        report.error(f"{int(wrong.sum())} segmentation(s) that are neither polygons nor RLE", table.places(wrong),
                     "Polygons are lists of at least 6 numbers, an even count of them, all finite.")
    broken = np.array([_rle_fault(table, row) for row in np.flatnonzero(kinds == "rle")], dtype="U100")
    rows = np.flatnonzero(kinds == "rle")[broken != ""] if len(broken) else []
    if len(rows):
        faults = [fault for fault in broken if fault]
        report.error(f"{len(rows)} run-length encoding(s) that do not fit their image",
                     [f"{place}: {fault}" for place, fault in zip(table.places(rows), faults)])
    _compare_with_boxes(table, np.flatnonzero((kinds == "polygons") & ~table.crowd), report)
    if mask_format is not None:
        _check_format(table, kinds, mask_format, report)


def _check_format(table, kinds, mask_format, report):
    missing = (kinds == "none") & ~table.crowd
    if missing.any():
        report.error(f"{int(missing.sum())} annotation(s) without a mask, and the model trains masks",
                     table.places(missing), "Annotate them, or switch MODEL.MASK_ON off.")
    encoded = (kinds == "rle") & ~table.crowd
    if encoded.any() and mask_format != "bitmask":
        report.error(f"{int(encoded.sum())} mask(s) are run-length encoded", table.places(encoded),
                     "Set INPUT.MASK_FORMAT to bitmask.")


def _kind(segmentation):
    if segmentation is None:
        return "none"
    if isinstance(segmentation, dict):
        return "rle"
    if not isinstance(segmentation, (list, tuple)):
        return "invalid"
    # One bad polygon among good ones is dropped when detectron2 loads the file; none left is a fault.
    return "polygons" if any(_is_polygon(polygon) for polygon in segmentation) else "invalid"


def _is_polygon(polygon):
    if not isinstance(polygon, (list, tuple, np.ndarray)) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        return bool(np.isfinite(np.asarray(polygon, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False


def _rle_fault(table, row):
    """What is wrong with an annotation's run-length encoding, or an empty text."""
    segmentation, image = table.segmentations[row], table.image_rows[row]
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not isinstance(counts, (list, str, bytes)):
        return "needs 'size' [height, width] and 'counts'"
    if image >= 0 and list(size) != table.sizes[image][::-1].tolist():
        return f"its size is {list(size)}, the image's height and width are {table.sizes[image][::-1].tolist()}"
    length = rle_length(counts)
    if length != size[0] * size[1]:
        return f"its counts cover {length} pixels of {size[0] * size[1]}"
    return ""


def rle_length(counts):
    """Number of pixels that a COCO run-length encoding covers; -1 if it is broken.

    ``counts`` is a list of runs, or COCO's text: 5 bits of a run a character from "0" on, bit 5 = more follow, signed,
    and from the third run on (counted from 0) the difference to the run two before.
    """
    if isinstance(counts, list):
        return sum(counts) if all(isinstance(n, int) and n >= 0 for n in counts) else -1
    runs, value, shift = [], 0, 0
    for byte in counts.encode() if isinstance(counts, str) else counts:
        bits = byte - 48
        if not 0 <= bits < 64:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16 > 0) << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return sum(runs) if not shift and all(run >= 0 for run in runs) else -1


def _compare_with_boxes(table, rows, report):
    """Polygons that lie somewhere else than their box tell of a wrong box format or of a resized image."""
    if not len(rows):
        return
    extents = np.array([_extent(table.segmentations[row]) for row in rows])
    x, y, width, height = table.boxes[rows].T
    sides = np.minimum(extents[:, 2:], np.stack([x + width, y + height], 1)) - np.maximum(
        extents[:, :2], np.stack([x, y], 1))
    inter = sides.clip(0).prod(1)
    union = (extents[:, 2:] - extents[:, :2]).prod(1) + width * height - inter
    apart = np.isfinite(union) & (inter < MIN_OVERLAP * union)
    if apart.any():
        many = apart.sum() > max(TOLERATED_SHARE * len(rows), 0.1 * len(rows))
        (report.error if many else report.warn)(
            f"{int(apart.sum())} box(es) do not lie where their polygons are", table.places(rows[apart]),
            "Are the boxes [x, y, width, height], and of the same image size as the polygons?")


def _extent(polygons):
    """x1, y1, x2, y2 of an annotation's valid polygons."""
    numbers = np.array(list(itertools.chain.from_iterable(p for p in polygons if _is_polygon(p))), dtype=np.float64)
    x, y = numbers[0::2], numbers[1::2]
    return x.min(), y.min(), x.max(), y.max()
