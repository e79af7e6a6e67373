"""Checks of segmentations: polygons and run-length encodings."""

import itertools

import numpy as np

from .check_boxes import FAR_OUTSIDE, tolerated
from .coco_values import as_number, whole_number

__all__ = ["check_mask_format", "check_masks", "rle_length", "usable_polygons"]

MIN_OVERLAP = 0.5  # IoU of a polygon's extent with the annotation's box
MANY_APART = 0.1  # above this share of the annotations it is an error
NO_MASK = ("Polygons are lists of at least 6 numbers, an even count of them, all finite; an encoding covers its image. "
           "These boxes count as boxes without a mask.")


def check_masks(table, report):
    """Takes away what is no polygon or encoding, and reports masks that do not belong to their box and image.

    Stray polygons beside good ones (a click, a line) are taken away; an annotation without a good one has no mask then.
    """
    polygons = _Polygons(table)
    stray = polygons.take_away_the_others(table)
    if stray:
        report.warn(f"{len(stray)} annotation(s) with stray polygons beside good ones (of fewer than three points, or "
                    "not finite)", table.places(stray), "They are left out: clicks and lines of the annotation tool.")
    good = set(polygons.owners.tolist())
    others = [row for row, s in enumerate(table.segmentations) if s is not None and row not in good]
    faults = {row: fault for row, fault in ((row, _fault(table, row)) for row in others) if fault}
    for row in faults:
        table.set_segmentation(row, None)
    if faults:
        say, advice = (report.error, "") if table.records is None else (report.warn, NO_MASK)
        say(f"{len(faults)} segmentation(s) that are neither polygons nor RLE of their image",
            [f"{place} ({fault})" for place, fault in zip(table.places(list(faults)), faults.values())], advice)
        report.repair("segmentations that are none")
    _compare_with_boxes(table, polygons, report)


def check_mask_format(table, report, mask_format, may_lack=True):
    """Counts the masks; reports what a model cannot train.

    Args:
        mask_format: what the model trains masks from (``INPUT.MASK_FORMAT``: "polygon" or "bitmask"); None if it does
            not, and then masks may be missing.
        may_lack: whether the data mapper leaves out objects without a mask, if they are few.
    """
    kinds = ["none" if s is None else "rle" if isinstance(s, dict) else "polygons" for s in table.segmentations]
    kinds = np.array(kinds, dtype="U8")
    report.summary["masks"] = {kind: int((kinds == kind).sum()) for kind in ("polygons", "rle", "none")}
    if mask_format is None:
        return
    trained = ~table.crowd & ~table.left_out
    missing = (kinds == "none") & trained
    if missing.any():
        what = f"{int(missing.sum())} annotation(s) without a mask, and the model trains masks"
        if may_lack and missing.sum() <= tolerated(len(table)) and missing.sum() < trained.sum():
            report.warn(what, table.places(missing), "They are left out of training, and of the evaluation of masks.")
        else:
            report.error(what, table.places(missing), "Annotate or delete them, or switch MODEL.MASK_ON off.")
    encoded = (kinds == "rle") & trained
    if encoded.any() and mask_format != "bitmask":
        report.error(f"{int(encoded.sum())} mask(s) are run-length encoded", table.places(encoded),
                     "Set INPUT.MASK_FORMAT to bitmask.")


def usable_polygons(segmentation):
    """Those of a list that are polygons: at least three points, all numbers finite."""
    polygons = segmentation if isinstance(segmentation, (list, tuple)) else ()
    return [p for p in polygons if _has_points(p) and np.isfinite([as_number(v) for v in p]).all()]


def _has_points(polygon):
    return isinstance(polygon, (list, tuple, np.ndarray)) and len(polygon) >= 6 and len(polygon) % 2 == 0


class _Polygons:
    """All usable polygons of a data set, flattened: COCO has a million of them.

    Attributes:
        owners: (P,) row of each polygon's annotation, not falling.
        polygons: the polygons themselves.
        low, high: (P, 2) its extent.
    """

    def __init__(self, table):
        lists = ((row, s) for row, s in enumerate(table.segmentations) if isinstance(s, (list, tuple)))
        pairs = [(row, polygon) for row, polygons in lists for polygon in polygons if _has_points(polygon)]
        self.owners, self.polygons = np.array([row for row, _ in pairs], dtype=np.int64), [p for _, p in pairs]
        self.low, self.high = np.zeros((0, 2)), np.zeros((0, 2))
        if pairs:
            points, starts = _points(self.polygons), np.cumsum([0] + [len(p) // 2 for p in self.polygons[:-1]])
            self.low, self.high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
            self._keep(np.isfinite(self.low).all(1) & np.isfinite(self.high).all(1) & self._near(table))

    def _near(self, table):
        """Which do not reach so far outside of their image that only drawing them would take hours."""
        with np.errstate(over="ignore"):
            limits = FAR_OUTSIDE * np.nan_to_num(table.box_image_sizes()[self.owners], nan=np.inf)
        return ((self.low > -limits) & (self.high < limits)).all(1)

    def _keep(self, which):
        self.polygons = list(itertools.compress(self.polygons, which))
        self.owners, self.low, self.high = self.owners[which], self.low[which], self.high[which]

    def take_away_the_others(self, table):
        """Leaves the usable polygons of an annotation that has some, and no others; returns the rows where it did."""
        changed = []
        rows, starts, counts = np.unique(self.owners, return_index=True, return_counts=True)
        for row, start, count in zip(rows.tolist(), starts.tolist(), counts.tolist()):
            if count < len(table.segmentations[row]):
                table.set_segmentation(row, self.polygons[start:start + count])
                changed.append(row)
        return changed

    def extents(self):
        """(rows of the annotations that have polygons, their extents (R, 4) as x1, y1, x2, y2)."""
        rows, starts = np.unique(self.owners, return_index=True)
        if not len(rows):
            return rows, np.zeros((0, 4))
        return rows, np.hstack([np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts)])


def _points(polygons):
    """(sum of V, 2) vertices of all polygons; NaN for what is no number."""
    try:
        values = np.array(list(itertools.chain.from_iterable(polygons)))
    except (ValueError, OverflowError):  # a list among the numbers, or numbers beyond 64 bits
        values = np.array(None)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        values = np.array([as_number(v) for v in itertools.chain.from_iterable(polygons)], dtype=np.float64)
    return values.reshape(-1, 2).astype(np.float64)


def _fault(table, row):
    """What is wrong with a mask that has no usable polygon; an empty text for a sound encoding."""
    segmentation = table.segmentations[row]
    if isinstance(segmentation, dict):
        return _rle_fault(table, row)
    if isinstance(segmentation, (list, tuple)) and all(isinstance(v, (int, float)) for v in segmentation):
        return "a list of numbers; a polygon needs a list around it"
    return "no polygon of three points or more"


def _rle_fault(table, row):
    """What is wrong with an annotation's run-length encoding, or an empty text."""
    segmentation, image = table.segmentations[row], table.image_rows[row]
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not isinstance(counts, (list, str, bytes)):
        return "needs 'size' [height, width] and 'counts'"
    numbers = [whole_number(n) for n in size]
    if None in numbers:
        return f"its size is {list(size)}"
    if image >= 0 and numbers != table.sizes[image][::-1].tolist():
        return f"its size is {list(size)}, the image's height and width are {_whole(table.sizes[image][::-1])}"
    length = rle_length(counts)
    if length != numbers[0] * numbers[1]:
        return f"its counts cover {length} pixels of {numbers[0] * numbers[1]}"
    if numbers != list(size):
        table.set_segmentation(row, {**segmentation, "size": numbers})
    return ""


def _whole(sizes):
    return [int(v) if v.is_integer() else v for v in sizes.tolist()]


def rle_length(counts):
    """Number of pixels that a COCO run-length encoding covers; -1 if it is broken.

    ``counts`` is a list of runs, or COCO's text: 5 bits of a run a character from "0" on, bit 5 = more follow, signed,
    and from the third run on (counted from 0) the difference to the run two before.
    """
    if isinstance(counts, list):
        return sum(counts) if all(type(n) is int and n >= 0 for n in counts) else -1
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
    compared = ~table.crowd[rows] & ~table.left_out[rows]
    extents, rows = extents[compared], rows[compared]
    if not len(rows):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = table.boxes[rows, :2], table.boxes[rows, :2] + table.boxes[rows, 2:]
        inter = (np.minimum(extents[:, 2:], high) - np.maximum(extents[:, :2], low)).clip(0).prod(1)
        union = (extents[:, 2:] - extents[:, :2]).prod(1) + (high - low).prod(1) - inter
    apart = np.isfinite(union) & (inter < MIN_OVERLAP * union)
    if apart.any():
        say = report.error if apart.mean() > MANY_APART else report.warn
        say(f"{int(apart.sum())} box(es) do not lie where their polygons are", table.places(rows[apart]),
            "Are the boxes [x, y, width, height], and of the same image size as the polygons?")
