"""Data sets that are registered by name: loading them, and saying where their files are looked for."""

import difflib
import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import DataError
from .roots import datasets_root

__all__ = ["load_registered", "require_files", "require_name"]


def load_registered(name):
    """``DatasetCatalog.get(name)`` whose errors about missing files say where they are looked for."""
    require_name(name)
    require_files(name)
    try:
        return DatasetCatalog.get(name)
    except OSError as error:
        raise DataError(f"data set '{name}' cannot be loaded: {error}. {_where_data_sets_are()}") from error


def require_files(name):
    """Raises ``DataError`` naming what is missing and $DETECTRON2_DATASETS if a data set's files are not there."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("builds_files"):
        return
    missing = [path for path in (metadata.get("json_file"), metadata.get("image_root"))
               if path and "://" not in path and not os.path.exists(path)]
    if missing:
        raise DataError(f"data set '{name}' needs {' and '.join(missing)}, which "
                           f"{'does' if len(missing) == 1 else 'do'} not exist. {_where_data_sets_are()}")


def _where_data_sets_are():
    current = os.getenv("DETECTRON2_DATASETS")
    state = f"it is {current!r}" if current else f"it is not set: '{datasets_root()}' below the working folder is used"
    return ("Data sets are looked for in the folder that the environment variable DETECTRON2_DATASETS names when "
            f"Python starts ({state}), for example $DETECTRON2_DATASETS/coco/annotations/instances_train2017.json and "
            "$DETECTRON2_DATASETS/coco/train2017. Own data need no name: see --train-json and --train-images.")


def require_name(name):
    if name in DatasetCatalog:
        return
    close = difflib.get_close_matches(name, DatasetCatalog.list(), 3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise DataError(f"there is no registered data set '{name}'.{hint}")
