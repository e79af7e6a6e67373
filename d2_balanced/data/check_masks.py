"""Checks of segmentations: polygons and run-length encodings."""

import itertools

import numpy as np

__all__ = ["check_masks", "rle_length"]

MIN_OVERLAP = 0.5  # IoU of a polygon's extent with the annotation's box
MANY_APART = 0.1  # above this share of the annotations it is an error


def check_masks(table, report, mask_format=None):
    """Valid polygons and encodings that belong to their box and image.

    Args:
        mask_format: what the model trains masks from (``INPUT.MASK_FORMAT``: "polygon" or "bitmask"); None if it does
            not, and then masks may be missing.
    """
    polygons = _Polygons(table.segmentations)
    kinds = _kinds(table.segmentations, polygons)
    report.summary["masks"] = {kind: int((kinds == kind).sum()) for kind in ("polygons", "rle", "none")}
    wrong = kinds == "invalid"
    if wrong.any():
        report.error(f"{int(wrong.sum())} segmentation(s) that are neither polygons nor RLE", table.places(wrong),
                     "Polygons are lists of at least 6 numbers, an even count of them, all finite.")
    _check_encodings(table, np.flatnonzero(kinds == "rle"), report)
    _compare_with_boxes(table, polygons, report)
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


def _kinds(segmentations, polygons):
    """(A,) of "none", "rle", "polygons", "invalid"."""
    kinds = ["none" if s is None else "rle" if isinstance(s, dict) else "invalid" for s in segmentations]
    kinds = np.array(kinds, dtype="U8")
    kinds[polygons.owners] = "polygons"  # detectron2 drops bad ones among good ones when it loads the file
    return kinds


class _Polygons:
    """All well-formed polygons of a data set, flattened: COCO has a million of them.

    Attributes:
        owners: (P,) row of each polygon's annotation, not falling.
        low, high: (P, 2) its extent.
    """

    def __init__(self, segmentations):
        owners, polygons = [], []
        for row, segmentation in enumerate(segmentations):
            for polygon in segmentation if isinstance(segmentation, (list, tuple)) else ():
                if isinstance(polygon, (list, tuple, np.ndarray)) and len(polygon) >= 6 and len(polygon) % 2 == 0:
                    owners.append(row)
                    polygons.append(polygon)
        self.owners, points = np.array(owners, dtype=np.int64), _points(polygons)
        self.low, self.high = np.zeros((0, 2)), np.zeros((0, 2))
        if not owners:
            return
        starts = np.cumsum([0] + [len(polygon) // 2 for polygon in polygons[:-1]])
        self.low, self.high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        finite = np.isfinite(self.low).all(1) & np.isfinite(self.high).all(1)
        self.owners, self.low, self.high = self.owners[finite], self.low[finite], self.high[finite]

    def extents(self):
        """(rows of the annotations that have polygons, their extents (R, 4) as x1, y1, x2, y2)."""
        rows, starts = np.unique(self.owners, return_index=True)
        if not len(rows):
            return rows, np.zeros((0, 4))
        return rows, np.hstack([np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts)])


def _points(polygons):
    """(sum of V, 2) vertices of all polygons; NaN for what is no number."""
    values = np.array(list(itertools.chain.from_iterable(polygons)))
    if values.dtype.kind not in "iuf":
        values = itertools.chain.from_iterable(polygons)
        values = np.array([v if isinstance(v, (int, float)) else np.nan for v in values], dtype=np.float64)
    return values.reshape(-1, 2).astype(np.float64)


def _check_encodings(table, rows, report):
    faults = [(place, fault) for place, fault in ((row, _rle_fault(table, row)) for row in rows) if fault]
    if faults:
        report.error(f"{len(faults)} run-length encoding(s) that do not fit their image",
                     [f"{table.place(row)}: {fault}" for row, fault in faults])


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


def _compare_with_boxes(table, polygons, report):
    """Polygons that lie somewhere else than their box tell of a wrong box format or of a resized image."""
    rows, extents = polygons.extents()
    extents, rows = extents[~table.crowd[rows]], rows[~table.crowd[rows]]
    if not len(rows):
        return
    low, high = table.boxes[rows, :2], table.boxes[rows, :2] + table.boxes[rows, 2:]
    inter = (np.minimum(extents[:, 2:], high) - np.maximum(extents[:, :2], low)).clip(0).prod(1)
    union = (extents[:, 2:] - extents[:, :2]).prod(1) + (high - low).prod(1) - inter
    apart = np.isfinite(union) & (inter < MIN_OVERLAP * union)
    if apart.any():
        say = report.error if apart.mean() > MANY_APART else report.warn
        say(f"{int(apart.sum())} box(es) do not lie where their polygons are", table.places(rows[apart]),
            "Are the boxes [x, y, width, height], and of the same image size as the polygons?")
