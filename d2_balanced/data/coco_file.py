"""A COCO annotation file, read: what the check looks at, what training gets, and what is evaluated against.

There is one reading. The check accepts a file if this reading finds no error; the loader and the evaluation raise for
the same errors, and get the same records.
"""

import json
import os
import tempfile

from detectron2.data.datasets.coco import load_coco_json

from ..utils.errors import DataError
from .check_boxes import check_boxes, check_sizes
from .check_masks import check_masks
from .coco_json import read_lists
from .coco_records import table_from_json
from .problems import Report

__all__ = ["file_state", "load_dicts", "read_coco", "read_content"]

_AS_WRITTEN = {}
"""{path: state of the file} for files that are read as they are written."""


def read_coco(json_file, image_root, report):
    """(content, table) of an annotation file; None if it cannot be used at all. ``report`` gets the faults.

    Args:
        image_root: folder of the images; None: they are not looked for.

    ``content`` has the keys ``images``, ``categories`` and (unless it is a test set) ``annotations``, in the form of
    :mod:`.coco_records`, without broken boxes and masks that are none. It may only be used if there are no errors.
    """
    state = file_state(json_file)
    content = read_lists(json_file, report)
    if content is None:
        return None
    table = table_from_json(content, image_root, report)
    check_sizes(table, report)
    check_boxes(table, report)
    check_masks(table, report)
    if table.left_out.any():
        content["annotations"] = [a for a, out in zip(table.records, table.left_out) if not out]
    key = os.path.abspath(json_file), image_root
    _AS_WRITTEN.pop(key, None)
    if state and not (report.errors or report.repairs or table.left_out.any() or table.masks_changed):
        _AS_WRITTEN[key] = state
    return content, table


def read_content(json_file, image_root=None):
    """The content of :func:`read_coco`; raises :class:`DataError` with everything that is wrong."""
    report = Report(str(json_file))
    found = read_coco(str(json_file), image_root, report)
    report.raise_if_errors()
    return found[0]


def load_dicts(json_file, image_root, name):
    """detectron2's data set dicts of an annotation file, by its own loader, which gets what :func:`read_coco` reads.

    Sets ``thing_classes`` and ``thing_dataset_id_to_contiguous_id`` of the metadata of ``name``.

    Raises:
        DataError: what the check of the file would report as errors.
    """
    if not _is_as_written(json_file, image_root):
        content = read_content(json_file, image_root)
        if not _is_as_written(json_file, image_root):
            return _load_content(content, json_file, image_root, name)
    return load_coco_json(json_file, image_root, name)


def _load_content(content, json_file, image_root, name):
    try:
        with tempfile.TemporaryDirectory(prefix="d2_balanced_") as folder:
            readable = os.path.join(folder, os.path.basename(json_file))
            with open(readable, "w", encoding="utf-8") as f:
                json.dump(content, f)
            return load_coco_json(readable, image_root, name)
    except OSError as error:
        raise DataError(f"{json_file} is brought to detectron2's form in a temporary folder, which cannot be used "
                        f"({error}). Name another one with the environment variable TMPDIR.") from None


def _is_as_written(json_file, image_root):
    state = file_state(json_file)
    return state is not None and _AS_WRITTEN.get((os.path.abspath(json_file), image_root)) == state


def file_state(path):
    """What changes when a file is written: inode, size, and time of the last change; None for what is no local file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
