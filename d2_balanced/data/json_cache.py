"""Converted annotation files: kept beside the data, or in a cache folder where the data are read-only."""

import json
import os
import tempfile

from iopath.common.file_io import get_cache_dir

from ..utils.errors import DataError

__all__ = ["CONVERTED", "cached_json", "write_json"]

CONVERTED = "coco_format"
"""The folder beside the data that converted files are kept in."""


def cached_json(base, cache_name, file_name, convert):
    """Path of a converted file; ``convert()`` is called, and what it returns written, if there is none yet.

    Args:
        base: folder of the data; the file is kept in its folder ``CONVERTED``, or below fvcore's cache folder
            ($FVCORE_CACHE) in ``cache_name`` if that cannot be written.
        file_name: has to change when the result of ``convert`` does.

    Raises:
        DataError: neither folder can be written; and what ``convert`` raises.
    """
    beside = base if os.path.basename(base) == CONVERTED else os.path.join(base, CONVERTED)
    folders = [beside, os.path.join(get_cache_dir(), cache_name)]
    for folder in folders:
        if os.path.isfile(os.path.join(folder, file_name)):
            return os.path.join(folder, file_name)
    content = convert()
    for folder in folders:
        try:
            return write_json(os.path.join(folder, file_name), content)
        except OSError as error:
            last = error
    raise DataError(f"the converted annotations {file_name} cannot be written to {' or '.join(folders)}: {last}")


def write_json(path, content):
    """Writes under a temporary name first: a reader, or another process doing the same, never sees half a file."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".unfinished")
    try:
        with os.fdopen(handle, "w") as f:
            json.dump(content, f)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.remove(temporary)
        raise
    return path
