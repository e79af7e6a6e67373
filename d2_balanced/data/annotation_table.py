"""The columns of a data set that the checks look at, whether from a COCO JSON file or from detectron2's dicts."""

import json
import os

import numpy as np

__all__ = ["AnnotationTable", "read_json", "table_from_json", "table_from_dicts"]

MISSING = object()


class AnnotationTable:
    """One row an image and one row an annotation; the columns are parallel lists or arrays.

    Attributes:
        image_ids, file_names, paths: per image (I); ``paths`` are what will be opened.
        sizes: (I, 2) width and height in pixels, NaN where not given.
        ids: per annotation (A), None where the source has none.
        image_rows: (A,) row of the annotation's image, -1 if there is no such image.
        class_rows: (A,) index into ``class_names``, -1 if there is no such class.
        boxes: (A, 4) x, y, width, height in pixels, NaN where the box is no list of four numbers.
        crowd: (A,) bool.
        segmentations: per annotation, as found; None if absent.
        annotated: whether the source says anything about objects (a test set does not).
    """

    def __init__(self, *, image_ids, file_names, paths, sizes, ids, image_rows, class_rows, class_names, boxes, crowd,
                 segmentations, annotated=True):
        self.image_ids, self.file_names, self.paths = image_ids, file_names, paths
        self.sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
        self.ids = ids
        self.image_rows = np.asarray(image_rows, dtype=np.int64)
        self.class_rows, self.class_names = np.asarray(class_rows, dtype=np.int64), list(class_names)
        self.boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        self.crowd, self.segmentations = np.asarray(crowd, dtype=bool), segmentations
        self.annotated = annotated

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
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return [self.place(row) if k < 10 else "" for k, row in enumerate(rows)]  # a report shows the first few

    def box_image_sizes(self):
        """(A, 2) width and height of each annotation's image, NaN where unknown."""
        if not len(self.sizes):
            return np.full((len(self), 2), np.nan)
        return np.where((self.image_rows >= 0)[:, None], self.sizes[self.image_rows], np.nan)


def read_json(path, report):
    """The content of a COCO JSON file, or None after reporting why it cannot be used.

    ``images`` and ``categories`` are lists of dicts then; so is ``annotations``, which the file of a test set may lack.
    """
    if not os.path.isfile(path):
        report.error(f"annotation file {path} does not exist")
        return None
    try:
        with open(path, "rb") as f:
            content = json.load(f)
    except (OSError, ValueError) as error:
        report.error(f"annotation file {path} is not readable as JSON ({error})", advice="Was it copied completely?")
        return None
    content = content if isinstance(content, dict) else {}
    wrong = [key for key in ("images", "categories") if not _is_list_of_dicts(content.get(key))]
    wrong += ["annotations"] if not _is_list_of_dicts(content.get("annotations", [])) else []
    if wrong:
        report.error(f"annotation file {path} is not in COCO format: no list of records under {wrong}")
        return None
    return content


def _is_list_of_dicts(value):
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def table_from_json(content, image_root, report):
    """The table of a COCO JSON's content. Reports records without needed fields, double and unknown ids."""
    images, annotations, categories = content["images"], content.get("annotations", []), content["categories"]
    names = _class_names(categories, report)
    image_ids = _column(images, "id", report, "image")
    file_names = [str(name) for name in _column(images, "file_name", report, "image")]
    ids = _column(annotations, "id", report, "annotation")
    _report_doubles(image_ids, "image id", report.error, "Give every image an id of its own.")
    _report_doubles(file_names, "file name", report.warn, "An image listed twice counts twice.")
    _report_doubles(ids, "annotation id", report.error, "Give every annotation an id of its own.")
    row_of_image = {_key(image_id): row for row, image_id in enumerate(image_ids)}
    row_of_class = {_key(class_id): row for row, class_id in enumerate(names)}
    class_ids = _column(annotations, "category_id", report, "annotation")
    table = AnnotationTable(
        image_ids=image_ids, file_names=file_names, paths=[os.path.join(image_root, name) for name in file_names],
        sizes=[(_number(image.get("width")), _number(image.get("height"))) for image in images],
        ids=ids, image_rows=[row_of_image.get(_key(a.get("image_id")), -1) for a in annotations],
        class_rows=[row_of_class.get(_key(class_id), -1) for class_id in class_ids], class_names=list(names.values()),
        boxes=_boxes(annotations), crowd=[a.get("iscrowd", 0) == 1 for a in annotations],
        segmentations=[a.get("segmentation") or None for a in annotations], annotated="annotations" in content,
    )
    _report_unknown(table, [a.get("image_id") for a in annotations], class_ids, list(names), report)
    _report_evaluation_fields(table, annotations, report)
    return table


def table_from_dicts(dataset_dicts, class_names):
    """The table of a registered data set in detectron2's format; ``class_names`` are its ``thing_classes``."""
    from detectron2.structures import BoxMode

    pairs = [(row, a) for row, record in enumerate(dataset_dicts) for a in record.get("annotations", ())]
    boxes = _boxes([a for _, a in pairs])
    for mode in {a.get("bbox_mode") for _, a in pairs} - {None, BoxMode.XYWH_ABS}:
        rows = [k for k, (_, a) in enumerate(pairs) if a.get("bbox_mode") == mode]
        boxes[rows] = np.asarray(BoxMode.convert(boxes[rows], mode, BoxMode.XYWH_ABS))
    classes = np.array([a["category_id"] for _, a in pairs], dtype=np.int64)
    return AnnotationTable(
        image_ids=[record["image_id"] for record in dataset_dicts],
        file_names=[os.path.basename(record["file_name"]) for record in dataset_dicts],
        paths=[record["file_name"] for record in dataset_dicts],
        sizes=[(_number(record.get("width")), _number(record.get("height"))) for record in dataset_dicts],
        ids=[None] * len(pairs), image_rows=[row for row, _ in pairs],
        class_rows=np.where((classes >= 0) & (classes < len(class_names)), classes, -1), class_names=class_names,
        boxes=boxes, crowd=[a.get("iscrowd", 0) == 1 for _, a in pairs],
        segmentations=[a.get("segmentation") or None for _, a in pairs],
        annotated=any("annotations" in record for record in dataset_dicts),
    )


def _key(value):
    """Ids are compared as they are; what cannot be an id (a list, None) compares as its text."""
    return value if isinstance(value, (int, str)) else repr(value)


def _number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def _column(records, key, report, kind):
    values = [record.get(key, MISSING) for record in records]
    missing = [k for k, value in enumerate(values) if value is MISSING or value is None]
    if missing:
        report.error(f"{len(missing)} {kind} record(s) without '{key}'", [f"{kind}s[{k}]" for k in missing])
    return [None if value is MISSING else value for value in values]


def _class_names(categories, report):
    """{category id: name} in the order of the ids, which is the order of the classes in detectron2."""
    ids = _column(categories, "id", report, "category")
    names = [str(name) for name in _column(categories, "name", report, "category")]
    _report_doubles(ids, "category id", report.error, "Give every category an id of its own.")
    _report_doubles(names, "category name", report.warn)
    bad = [repr(i) for i in ids if not isinstance(i, int) or isinstance(i, bool)]
    if bad:
        report.error("category ids must be integers", bad)
    pairs = zip(ids, names) if bad else sorted(zip(ids, names))
    return {_key(i): name for i, name in pairs}


def _report_doubles(values, kind, say, advice=""):
    seen, doubles = set(), {}
    for value in values:
        key = _key(value)
        if key in seen and value is not None:
            doubles[key] = doubles.get(key, 1) + 1
        seen.add(key)
    if doubles:
        say(f"{len(doubles)} duplicate {kind}(s)", [f"{key} ({n} times)" for key, n in doubles.items()], advice)


def _boxes(annotations):
    """(A, 4) float64; the whole column at once, and one by one only if some box is malformed."""
    boxes = [a.get("bbox") for a in annotations]
    try:
        array = np.array(boxes)  # without dtype, which would read "12" as a number
        if array.shape == (len(boxes), 4) and array.dtype.kind in "iuf":
            return array.astype(np.float64)
    except (TypeError, ValueError):  # lists of different lengths
        pass
    return np.array([_box(box) for box in boxes], dtype=np.float64).reshape(-1, 4)


def _box(box):
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return [float("nan")] * 4
    return [_number(v) if not isinstance(v, np.generic) else float(v) for v in box]


def _report_unknown(table, image_ids, class_ids, known_classes, report):
    rows = np.flatnonzero(table.image_rows < 0)
    if len(rows):
        report.error(f"{len(rows)} annotation(s) of images that the file does not list",
                     [f"annotation {table.ids[k]}, image_id {image_ids[k]}" for k in rows])
    rows = np.flatnonzero(table.class_rows < 0)
    if len(rows):
        report.error(f"{len(rows)} annotation(s) of unknown categories",
                     [f"{place}, category_id {class_ids[k]}" for k, place in zip(rows, table.places(rows))],
                     f"'categories' has the ids {known_classes[:20]}{'...' if len(known_classes) > 20 else ''}.")


def _report_evaluation_fields(table, annotations, report):
    """What COCO's evaluation trips over: fields that training does not need, and id 0."""
    for key in ("area", "iscrowd"):
        rows = np.array([key not in a for a in annotations], dtype=bool)
        if rows.any():
            report.warn(f"{int(rows.sum())} annotation(s) without '{key}'", table.places(rows),
                        "This package does without; pycocotools alone cannot evaluate such a file.")
    rows = np.array([a.get("iscrowd", 0) not in (0, 1) for a in annotations], dtype=bool)
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) whose 'iscrowd' is neither 0 nor 1", table.places(rows))
    rows = np.array([bool(a.get("ignore", 0)) for a in annotations], dtype=bool)
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) with 'ignore'", table.places(rows),
                     "detectron2 does not load them; mark regions to be ignored with iscrowd 1.")
    rows = np.array([a.get("id") == 0 for a in annotations], dtype=bool)
    if rows.any():
        report.warn("annotation id 0", table.places(rows), "pycocotools alone takes it for 'not matched'.")
