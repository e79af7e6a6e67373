"""The columns of a data set that the checks look at, whether from a COCO JSON file or from detectron2's dicts."""

import os

import numpy as np

from .coco_values import as_number

__all__ = ["AnnotationTable", "box_column", "table_from_dicts"]


class AnnotationTable:
    """One row an image and one row an annotation; the columns are parallel lists or arrays.

    Attributes:
        image_ids, file_names, paths: per image (I); ``paths`` are what will be opened.
        sizes: (I, 2) width and height in pixels, NaN where not given.
        ids: per annotation (A), None where the source has none.
        image_rows: (A,) row of the annotation's image, -1 if there is no such image.
        class_rows: (A,) index into ``class_names``, -1 if there is no such class.
        class_ids: the data set's category ids, in the order of ``class_names``.
        boxes: (A, 4) x, y, width, height in pixels, NaN where the box is no list of four numbers.
        areas: (A,) as given, NaN where it is no number.
        crowd: (A,) bool.
        segmentations: per annotation, as found; None if absent.
        records: per annotation, the record of the JSON file that training and evaluation read; None for dicts.
        left_out: (A,) bool, what training and evaluation do not get: broken boxes. Set by the checks.
        masks_changed: whether :meth:`set_segmentation` was called.
        annotated: whether the source says anything about objects (a test set does not).
    """

    def __init__(self, *, image_ids, file_names, paths, sizes, ids, image_rows, class_rows, class_ids, class_names,
                 boxes, areas, crowd, segmentations, records=None, annotated=True):
        self.image_ids, self.file_names, self.paths = image_ids, file_names, paths
        self.sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
        self.ids, self.records = ids, records
        self.image_rows = np.asarray(image_rows, dtype=np.int64)
        self.class_rows = np.asarray(class_rows, dtype=np.int64)
        self.class_ids, self.class_names = list(class_ids), list(class_names)
        self.boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        self.areas = np.asarray(areas, dtype=np.float64)
        self.crowd, self.segmentations = np.asarray(crowd, dtype=bool), segmentations
        self.left_out = np.zeros(len(self.image_rows), dtype=bool)
        self.annotated, self.masks_changed = annotated, False

    def __len__(self):
        return len(self.image_rows)

    def image_place(self, row):
        """Text that names an image."""
        return f"image {self.image_ids[row]} ({self.file_names[row]})"

    def place(self, row):
        """Text that names an annotation, its image and its box."""
        image = self.image_rows[row]
        where = self.image_place(image) if image >= 0 else "an unknown image"
        which = f"annotation {self.ids[row]}" if self.ids[row] is not None else "an annotation"
        return f"{where}, {which}, box {[round(float(v), 2) for v in self.boxes[row]]}"

    def places(self, rows):
        """:meth:`place` of a boolean mask (A,) or of row numbers; an iterable that is as lazy as its reader."""
        return _named(rows, self.place)

    def image_places(self, rows):
        """:meth:`image_place` of a boolean mask (I,) or of row numbers."""
        return _named(rows, self.image_place)

    def box_image_sizes(self):
        """(A, 2) width and height of each annotation's image, NaN where unknown."""
        if not len(self.sizes):
            return np.full((len(self), 2), np.nan)
        return np.where((self.image_rows >= 0)[:, None], self.sizes[self.image_rows], np.nan)

    def ordinary(self):
        """(A,) bool: the objects that are trained on and looked for; neither crowds nor what is left out."""
        return ~self.crowd & ~self.left_out & (self.image_rows >= 0) & (self.class_rows >= 0)

    def set_segmentation(self, row, value):
        """Replaces a mask (None: takes it away) in the column and in the record that is read."""
        self.segmentations[row], self.masks_changed = value, True
        if self.records is not None:
            self.records[row].pop("segmentation", None)
            if value is not None:
                self.records[row]["segmentation"] = value


def _named(rows, place):
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    return [place(row) if k < 10 else "" for k, row in enumerate(rows)]  # a report shows the first few


def table_from_dicts(dataset_dicts, class_names):
    """The table of a registered data set in detectron2's format; ``class_names`` are its ``thing_classes``."""
    from detectron2.structures import BoxMode

    pairs = [(row, a) for row, record in enumerate(dataset_dicts) for a in record.get("annotations", ())]
    boxes = box_column([a for _, a in pairs])
    for mode in {a.get("bbox_mode") for _, a in pairs} - {None, BoxMode.XYWH_ABS}:
        rows = [k for k, (_, a) in enumerate(pairs) if a.get("bbox_mode") == mode]
        boxes[rows] = np.asarray(BoxMode.convert(boxes[rows], mode, BoxMode.XYWH_ABS))
    classes = np.array([a["category_id"] for _, a in pairs], dtype=np.int64)
    return AnnotationTable(
        image_ids=[record["image_id"] for record in dataset_dicts],
        file_names=[os.path.basename(record["file_name"]) for record in dataset_dicts],
        paths=[record["file_name"] for record in dataset_dicts],
        sizes=[(as_number(record.get("width")), as_number(record.get("height"))) for record in dataset_dicts],
        ids=[None] * len(pairs), image_rows=[row for row, _ in pairs],
        class_rows=np.where((classes >= 0) & (classes < len(class_names)), classes, -1), class_names=class_names,
        class_ids=range(len(class_names)), boxes=boxes, areas=[as_number(a.get("area")) for _, a in pairs],
        crowd=[a.get("iscrowd", 0) == 1 for _, a in pairs],
        segmentations=[a.get("segmentation") or None for _, a in pairs],
        annotated=any("annotations" in record for record in dataset_dicts),
    )


def box_column(annotations):
    """(A, 4) float64 from the ``bbox`` of records, NaN for what is no list of four numbers."""
    boxes = [a.get("bbox") for a in annotations]
    try:
        array = np.array(boxes)  # without dtype, which would read "12" as a number
        if array.shape == (len(boxes), 4) and array.dtype.kind in "iuf":
            return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):  # lists of different lengths, numbers beyond 64 bits
        pass
    return np.array([_box(box) for box in boxes], dtype=np.float64).reshape(-1, 4)


def _box(box):
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return [float("nan")] * 4
    return [as_number(v) if not isinstance(v, np.generic) else float(v) for v in box]
