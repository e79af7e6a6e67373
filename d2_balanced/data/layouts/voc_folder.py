"""Pascal VOC's layout: an XML file an image, in ``Annotations`` beside ``JPEGImages``, or beside the image.

Corners are read as in :mod:`..voc`: 1-based pixel numbers, both inside the box. "Difficult" objects are ordinary ones.
"""

from __future__ import annotations

import glob
import math
import os
import xml.etree.ElementTree as ElementTree
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ...utils.errors import DataError
from ..voc import box_of_object
from .records import Left, image_record, is_image, lines_of

__all__ = ["ADVICE", "files_of", "find", "read"]

ADVICE = "Corners are in pixels: xmin, ymin, xmax, ymax."

_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


def find(folder: str) -> Optional[Dict[str, Any]]:
    """``{"splits": {name: XML files}}`` of a folder in this layout, or None."""
    splits = _listed(folder) if os.path.isdir(os.path.join(folder, "Annotations")) else _beside_images(folder)
    return {"splits": splits} if splits else None


def files_of(path: str) -> Tuple[str]:
    """The file that is read of an image, beside what lies in the folder of the data."""
    return (path,)


def read(
    layout: Dict[str, Any], splits: Sequence[Sequence[str]], root: str, lefts: Sequence[Left]
) -> Tuple[List[List[Dict[str, Any]]], List[str]]:
    """Image records of every split, a list of its XML files, and the names of all their classes in alphabetical order.

    Raises:
        DataError: names an XML file that cannot be read, or whose image is not there.
    """
    records = [[_read_file(path, root, left) for path in files] for files, left in zip(splits, lefts)]
    _tell_images_alone(splits, lefts[0])
    objects = [each for split in records for record in split for each in record["annotations"]]
    classes = sorted({each["name"] for each in objects})
    ids = {name: k + 1 for k, name in enumerate(classes)}
    for each in objects:
        each["category_id"] = ids[each.pop("name")]
    return records, classes


def _tell_images_alone(splits: Sequence[Sequence[str]], left: Left) -> None:
    """Images beside those that are read, which have no XML file, in a list or not."""
    for folder in sorted({os.path.dirname(path) for files in splits for path in files}):
        texts = {os.path.splitext(name)[0] for name in os.listdir(folder) if name.endswith(".xml")}
        beside = os.path.join(os.path.dirname(folder), "JPEGImages")
        images = beside if os.path.basename(folder) == "Annotations" and os.path.isdir(beside) else folder
        for name in sorted(filter(is_image, os.listdir(images))):
            if os.path.splitext(name)[0] not in texts:
                left.add("images without an XML file of their name, left out unless one names them", os.path.join(images, name))


def _listed(folder: str) -> Dict[str, List[str]]:
    annotations = os.path.join(folder, "Annotations")
    splits = {}
    for split, names in _SPLITS.items():
        lists = [os.path.join(folder, "ImageSets", "Main", f"{name}.txt") for name in names]
        path = next(filter(os.path.isfile, lists), None)
        if path:
            ids = [line.split()[0] for line in lines_of(path) if line.strip()]
            splits[split] = [os.path.join(annotations, f"{each}.xml") for each in ids]
    everything = sorted(glob.glob(os.path.join(glob.escape(annotations), "*.xml")))
    return splits or ({"train": everything} if everything else {})


def _beside_images(folder: str) -> Dict[str, List[str]]:
    splits = {}
    for split, names in _SPLITS.items():
        for name in names:
            below = os.path.join(glob.escape(os.path.join(folder, name)), "**", "*.xml")
            files = sorted(glob.glob(below, recursive=True))
            if files:
                splits[split] = files
                break
    files = sorted(glob.glob(os.path.join(glob.escape(folder), "*.xml")))
    return splits or ({"train": files} if files else {})


def _read_file(path: str, root: str, left: Left) -> Dict[str, Any]:
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"annotation file {path} is not a readable VOC annotation: {error}") from None
    record = image_record(_image_of(path, tree), root)
    stated = tuple(_number(tree.findtext(f"size/{key}")) for key in ("width", "height"))
    if all(stated) and stated != (record["width"], record["height"]):
        left.add("XML files that state another size than the image has; the image's holds", path)
    for number, element in enumerate(tree.findall("object"), 1):
        place = f"{path}, object {number}"
        box = _box(element, place)
        if box[2] <= 0 or box[3] <= 0:
            left.add_object("without area", place)
            continue
        if element.findtext("difficult") == "1":
            left.add("objects marked difficult, read as ordinary ones", place)
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{place} has no name.")
        record["annotations"].append({"name": name, "bbox": box, "area": box[2] * box[3]})
    return record


def _number(text: Optional[str]) -> float:
    """0 where nothing is stated, NaN for what is no number."""
    try:
        return float(text or 0)
    except ValueError:
        return math.nan


def _box(element: ElementTree.Element, place: str) -> List[float]:
    try:
        box = box_of_object(element)
    except (TypeError, ValueError):
        raise DataError(f"{place} has no bndbox of four numbers: xmin, ymin, xmax, ymax.") from None
    if not all(map(math.isfinite, box)):
        raise DataError(f"{place} has a bndbox that is not finite.")
    return box


def _image_of(path: str, tree: ElementTree.ElementTree) -> str:
    """The image of an XML file: of the name that it states, or of its own name with an image's suffix."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    beside = os.path.join(os.path.dirname(folder), "JPEGImages")
    stated = os.path.basename((tree.findtext("filename") or "").replace("\\", "/"))
    for where in (beside, folder):
        if stated and is_image(stated) and os.path.isfile(os.path.join(where, stated)):
            return os.path.join(where, stated)
    for where in (beside, folder):
        found = sorted(filter(is_image, glob.glob(glob.escape(os.path.join(where, stem)) + ".*")))
        if found:
            return found[0]
    raise DataError(f"the image of {path} ({stated or stem}) is neither in {beside} nor in {folder}.")
