"""The records of a COCO file in the one form that the check, training and evaluation read.

Ids are all whole numbers, or all text as ``images`` writes them; names are text; widths, heights and ``iscrowd`` whole
numbers; file names are those of files that are there. What is written otherwise and means the same is brought to that
form (``Report.repairs``), everything else is an error that names the record.
"""

import os

import numpy as np

from .annotation_table import AnnotationTable, box_column
from .coco_values import as_flag, as_number, as_text, id_key, is_file_name, whole_number
from .image_names import find_images

__all__ = ["read_classes", "table_from_json"]

_MISSING = object()


def table_from_json(content, image_root, report):
    """The table of a COCO JSON's content, whose records are brought to the one form, in place.

    Args:
        image_root: folder of the images; None if they are not looked for, and then they need no file names either.

    Reports records without needed fields, double and unknown ids, and values that have no one meaning.
    """
    images, annotations = content["images"], content.get("annotations", [])
    names = read_classes(content["categories"], report)
    image_ids = _ids(images, "image", report)
    file_names, paths = _files(images, image_root, report)
    ids = _ids(annotations, "annotation", report)
    class_ids = _column(annotations, "category_id", report, "annotation")
    image_rows = _refer(annotations, "image_id", image_ids, report)
    class_rows = _refer(annotations, "category_id", list(names), report)
    table = AnnotationTable(
        image_ids=image_ids, file_names=file_names, paths=paths, sizes=_sizes(images, report),
        ids=ids, image_rows=image_rows, class_rows=class_rows, class_ids=list(names), class_names=list(names.values()),
        boxes=box_column(annotations), areas=[as_number(a.get("area")) for a in annotations],
        crowd=_flags(annotations, report), segmentations=[a.get("segmentation") or None for a in annotations],
        records=annotations, annotated="annotations" in content,
    )
    _report_unknown(table, [a.get("image_id") for a in annotations], class_ids, list(names), report)
    _report_flags(table, annotations, report)
    return table


def read_classes(categories, report):
    """{category id: name} in the order of the ids, which is the order of the classes in detectron2."""
    ids, names = _column(categories, "id", report, "category"), _column(categories, "name", report, "category")
    numbers, texts = [whole_number(i) for i in ids], [as_text(name) for name in names]
    bad = [repr(i) for i, number in zip(ids, numbers) if number is None and i is not None]
    if bad:
        report.error("category ids must be integers", bad)
    bad = [f"{name!r} of id {i}" for i, name, text in zip(ids, names, texts) if text is None and name is not None]
    if bad:
        report.error("category names must be text", bad, "Give every category a name that is not empty.")
    if not categories:
        report.error("'categories' is empty, so there is nothing to detect")
    _report_doubles(numbers, "category id", report.error, "Give every category an id of its own.")
    _report_doubles(texts, "category name", report.warn, "They stay two classes, told apart by their ids.")
    _write(categories, "id", numbers, "category ids", report)
    _write(categories, "name", texts, "category names that are numbers", report)
    usable = [(number, text or "?") for number, text in zip(numbers, texts) if number is not None]
    return dict(sorted(usable, key=lambda pair: pair[0]))


def _ids(records, kind, report):
    """The column of ids: whole numbers, or text; one kind for all records."""
    values = _column(records, "id", report, kind)
    if all(type(value) is int for value in values):
        ids = values
    else:
        keys = [id_key(value) for value in values]
        bad = [repr(value) for value, key in zip(values, keys) if key is None and value is not None]
        if bad:
            report.error(f"{len(bad)} {kind} id(s) that are neither whole numbers nor text", bad)
        all_text = all(isinstance(value, str) for value in values)
        texts = [repr(key) for key in keys if isinstance(key, str)]
        if texts and not all_text and kind == "image":  # those of annotations need no order
            report.error("image ids are numbers in some records and text in others", texts,
                         "Use one kind, in 'images' and in 'annotations'.")
        ids = values if all_text else keys
        _write(records, "id", ids, f"{kind} ids", report)
    _report_doubles([id_key(i) for i in ids], f"{kind} id", report.error, f"Give every {kind} an id of its own.")
    return ids


def _refer(annotations, key, ids, report):
    """(A,) row of what each annotation's ``key`` names among ``ids``, -1 if there is none; it gets the id's form."""
    row_of = {id_key(i): row for row, i in enumerate(ids) if i is not None}
    values = [a.get(key) for a in annotations]
    rows = [row_of.get(value if type(value) is int else id_key(value), -1) for value in values]
    _write(annotations, key, [ids[row] if row >= 0 else value for row, value in zip(rows, values)], f"'{key}'", report)
    return rows


def _files(images, image_root, report):
    """(names as they are in the folder, paths)."""
    if image_root is None:
        names = [str(image.get("file_name", "")) for image in images]
        return names, names
    values = _column(images, "file_name", report, "image")
    bad = [f"images[{k}]: {v!r}" for k, v in enumerate(values) if v is not None and not is_file_name(v)]
    if bad:
        report.error(f"{len(bad)} file name(s) that no file can have", bad)
    names = [value if is_file_name(value) else "" for value in values]
    found = find_images(image_root, names)
    other = [f"{name!r} is read from {there!r}" for name, there in zip(names, found) if name != there]
    if other:
        report.warn(f"{len(other)} file name(s) are spelled otherwise than the files", other,
                    "Back-slashes, %-encoding and accents written as two characters come from other systems.")
        _write(images, "file_name", found, "file names", report)
    _report_doubles(found, "file name", report.warn, "An image listed twice counts twice.")
    return found, [os.path.join(image_root, name) for name in found]


def _sizes(images, report):
    sizes = []
    for key in ("width", "height"):
        values = [image.get(key) for image in images]
        numbers = [whole_number(value) for value in values]
        _write(images, key, [v if n is None else n for v, n in zip(values, numbers)], "widths and heights", report)
        sizes.append([float("nan") if n is None else as_number(n) for n in numbers])
    return np.array(sizes).T.reshape(-1, 2)


def _flags(annotations, report):
    """(A,) whether ``iscrowd`` is 1."""
    values = [a.get("iscrowd", 0) for a in annotations]
    if all(type(value) is int for value in values):
        return [value == 1 for value in values]
    flags = [as_flag(value) for value in values]
    given = [row for row, a in enumerate(annotations) if "iscrowd" in a and flags[row] is not None]
    _write([annotations[row] for row in given], "iscrowd", [flags[row] for row in given], "'iscrowd'", report)
    return [flag == 1 for flag in flags]


def _write(records, key, values, what, report):
    """Puts ``values`` into the records where they are not so already; None is what could not be read."""
    for record, value in zip(records, values):
        old = record.get(key)
        if value is not None and (old is not value) and (type(old) is not type(value) or old != value):
            record[key] = value
            report.repair(what)


def _column(records, key, report, kind):
    values = [record.get(key, _MISSING) for record in records]
    missing = [k for k, value in enumerate(values) if value is _MISSING or value is None]
    if missing:
        plural = "categories" if kind == "category" else f"{kind}s"
        report.error(f"{len(missing)} {kind} record(s) without '{key}'", [f"{plural}[{k}]" for k in missing])
    return [None if value is _MISSING else value for value in values]


def _report_doubles(values, kind, say, advice=""):
    seen, doubles = set(), {}
    for value in values:
        if value in seen and value is not None:
            doubles[value] = doubles.get(value, 1) + 1
        seen.add(value)
    if doubles:
        say(f"{len(doubles)} duplicate {kind}(s)", [f"{value} ({n} times)" for value, n in doubles.items()], advice)


def _report_unknown(table, image_ids, class_ids, known_classes, report):
    rows = np.flatnonzero(table.image_rows < 0)
    if len(rows):
        report.error(f"{len(rows)} annotation(s) of images that the file does not list",
                     [f"annotation {table.ids[k]}, image_id {image_ids[k]!r}" for k in rows])
    rows = np.flatnonzero(table.class_rows < 0)
    if len(rows):
        report.error(f"{len(rows)} annotation(s) of unknown categories",
                     [f"{place}, category_id {class_ids[k]!r}" for k, place in zip(rows, table.places(rows))],
                     f"'categories' has the ids {known_classes[:20]}{'...' if len(known_classes) > 20 else ''}.")


def _report_flags(table, annotations, report):
    rows = np.array([as_flag(a.get("iscrowd", 0)) is None for a in annotations], dtype=bool)
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) whose 'iscrowd' is neither 0 nor 1", table.places(rows))
    rows = np.array([bool(a.get("ignore", 0)) for a in annotations], dtype=bool)
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) with 'ignore'", table.places(rows),
                     "detectron2 does not load them; mark regions to be ignored with iscrowd 1.")
    for key, usable in (("ignore", lambda value: value == 0), ("keypoints", _are_keypoints)):
        for annotation in annotations:
            if key in annotation and not usable(annotation[key]):  # detectron2's loader would fail on them
                del annotation[key]
                report.repair(f"'{key}' that says nothing")


def _are_keypoints(value):
    return isinstance(value, list) and all(type(v) in (int, float) for v in value)
