"""COCO's layout: JSON files in ``annotations``, in the folder itself, or beside the images as Roboflow exports them."""

from __future__ import annotations

import os
import re
from glob import escape, glob
from typing import Any, Dict, List, Optional, Tuple

from ...utils.errors import DataError
from ..coco_json import read_lists
from ..json_cache import CONVERTED
from ..problems import Report
from .records import images_below

__all__ = ["find"]

_ROBOFLOW = "_annotations.coco.json"
_SPLITS = {"train": r"train", "val": r"val(id(ation)?)?", "test": r"test"}


def find(folder: str) -> Optional[Dict[str, Any]]:
    """``{"splits": {name: (annotation file, image folder)}}`` of a folder in this layout, or None."""
    splits: Dict[str, List[Tuple[str, str]]] = {}
    for path in _annotation_files(folder):
        content = _lists(path)
        if content is not None:
            splits.setdefault(_split_of(path, folder), []).append((path, _image_folder(path, folder, content)))
    for split, found in splits.items():
        if len(found) > 1:
            names = ", ".join(path for path, _ in found)
            raise DataError(f"{folder} has several annotation files for {split}: {names}. Give one: --{split}-json.")
    return {"splits": {split: found[0] for split, found in splits.items()}} if splits else None


def _annotation_files(folder: str) -> List[str]:
    places = [folder, os.path.join(folder, "annotations"), *sorted(glob(os.path.join(escape(folder), "*", "")))]
    places = [place for place in places if os.path.basename(os.path.normpath(place)) != CONVERTED]
    found = [path for place in places for path in sorted(glob(os.path.join(escape(place), "*.json")))]
    return list(dict.fromkeys(map(os.path.normpath, found)))


def _lists(path: str) -> Optional[Dict[str, Any]]:
    """The content of an annotation file of objects; None for other JSON (captions, keypoints, results, settings)."""
    if re.search(r"captions|keypoints|image_info", os.path.basename(path)):
        return None
    content = read_lists(path, Report(path))
    return content if content and content.get("images") and "categories" in content else None


def _split_of(path: str, folder: str) -> str:
    parent = os.path.dirname(path)
    words = f"{os.path.basename(parent) if parent != folder else ''} {os.path.basename(path)}"
    for split, pattern in _SPLITS.items():
        if re.search(rf"(^|[^a-z]){pattern}([^a-z]|$)", words.lower()):
            return split
    return "train"


def _image_folder(path: str, folder: str, content: Dict[str, Any]) -> str:
    name = str(content["images"][0].get("file_name", ""))
    stem = re.sub(r"^instances_", "", os.path.splitext(os.path.basename(path))[0])
    split = _split_of(path, folder)
    spelled = [split, {"val": "valid"}.get(split, split), stem]
    places = [os.path.dirname(path), folder, os.path.join(folder, "images")]
    for each in spelled:
        places += [os.path.join(folder, *parts) for parts in ((each,), ("images", each), (each, "images"))]
    for place in places:
        if name and os.path.isfile(os.path.join(place, name)):
            return place
    some = next(iter(images_below(folder)), None)
    found = f"; an image that is there: {some}" if some else ", and there is no image in it"
    raise DataError(f"image {name!r} of {path} is not in {folder}{found}. Give the folder: --{split}-images.")
