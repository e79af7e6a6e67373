"""A COCO annotation file as it is written: the three lists of records in it."""

import os

from detectron2.utils.file_io import PathManager

from ..utils.errors import DataError
from ..utils.json_file import parse_json

__all__ = ["read_lists"]


def read_lists(path, report):
    """The content of a COCO JSON file, or None after reporting why it cannot be used.

    ``images`` and ``categories`` are lists of dicts then; so is ``annotations``, which the file of a test set may lack.
    """
    local = PathManager.get_local_path(path) if "://" in path else path
    if not os.path.isfile(local):
        what = "is a folder, not a file" if os.path.isdir(local) else "does not exist"
        report.error(f"annotation file {path} {what}")
        return None
    try:
        with open(local, "rb") as f:
            content, marked = parse_json(f.read())
    except OSError as error:
        report.error(f"annotation file {path} cannot be read ({error})")
    except DataError as error:
        report.error(f"annotation file {path} {error}")
    else:
        if marked:
            report.repair("a byte order mark at the start of the file")
        return _with_lists(content, path, report)
    return None


def _with_lists(content, path, report):
    records = content if isinstance(content, dict) else {}
    wrong = [key for key in ("images", "categories") if not _is_list_of_dicts(records.get(key))]
    wrong += ["annotations"] if not _is_list_of_dicts(records.get("annotations", [])) else []
    if not wrong:
        return content
    kind = "" if isinstance(content, dict) else f" (the file holds a {type(content).__name__}, not an object)"
    report.error(f"annotation file {path} is not in COCO format: no list of records under {wrong}{kind}")
    return None


def _is_list_of_dicts(value):
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)
