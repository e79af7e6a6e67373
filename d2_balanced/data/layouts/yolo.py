"""YOLO's layout: a text file an image, a line an object, coordinates as shares of the image's width and height.

``class cx cy w h`` is a box, ``class x1 y1 x2 y2 x3 y3 ...`` a polygon. ``data.yaml`` names the classes and where the
images are; labels stand in ``labels`` where the images stand in ``images``, else beside them.
"""

from __future__ import annotations

import glob
import math
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

import yaml

from ...utils.errors import DataError
from .records import Left, image_record, images_below, is_image, lines_of

__all__ = ["ADVICE", "files_of", "find", "read"]

ADVICE = "Coordinates are shares of the image's width and height, from 0 to 1, not pixels: class cx cy w h."

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_OUTSIDE = 1e-3  # of the image's size, that a coordinate may lie outside by rounding


def find(folder: str) -> Optional[Dict[str, Any]]:
    """``{"splits": {name: images}, "names": class names or None}`` of a folder in this layout, or None."""
    settings = _settings(folder)
    splits = {}
    for split, names in _KEYS.items():
        images = [path for name in names for path in _images_of(folder, settings, name)]
        if images:
            splits[split] = sorted(set(images))
    if not splits and os.path.isdir(os.path.join(folder, "labels")):
        splits = {"train": images_below(os.path.join(folder, "images"))}
    labeled = any(os.path.isfile(_label_file(image)) for images in splits.values() for image in images)
    return {"splits": splits, "names": _names(folder, settings)} if labeled else None


def files_of(image: str) -> Tuple[str, str]:
    """The files that an image's record comes from; the second need not be there."""
    return image, _label_file(image)


def read(
    layout: Dict[str, Any], splits: Sequence[Sequence[str]], root: str, lefts: Sequence[Left]
) -> Tuple[List[List[Dict[str, Any]]], List[str]]:
    """Image records of every split, a list of its images, and the class names; without names a class is its number.

    Raises:
        DataError: names the file and line of what is neither a box nor a polygon, and of a class without a name.
    """
    names = layout["names"]
    records = [_records(images, root, names, left) for images, left in zip(splits, lefts)]
    for images, left in zip(splits, lefts):
        _tell_labels_alone(images, left)
    if names:
        return records, list(names)
    used = [each["category_id"] for split in records for record in split for each in record["annotations"]]
    numbers = [str(k) for k in range(max(used, default=0))]
    lefts[0].add("classes without names (in data.yaml or classes.txt), called by their numbers", ", ".join(numbers))
    return records, numbers


def _records(images: Sequence[str], root: str, names: Optional[Sequence[str]], left: Left) -> List[Dict[str, Any]]:
    records, seen = [], set()
    for image in images:
        record = image_record(image, root)
        path = _label_file(image)
        if path in seen:
            left.add("images that share the label file of another (their names differ in the ending only)", record["file_name"])
        seen.add(path)
        if os.path.isfile(path):
            record["annotations"] = _objects(path, record, names, left)
        else:
            left.add("images without a label file, taken as images without objects", record["file_name"])
        records.append(record)
    return records


def _tell_labels_alone(images: Sequence[str], left: Left) -> None:
    """Labels beside those of the images, for which there is no image at all, listed or not."""
    places = sorted({(os.path.dirname(_label_file(image)), os.path.dirname(image)) for image in images})
    for labels, folder in places:
        stems = {os.path.splitext(name)[0] for name in os.listdir(folder) if is_image(name)}
        for path in sorted(glob.glob(os.path.join(glob.escape(labels), "*.txt"))):
            if os.path.splitext(os.path.basename(path))[0] not in stems and _holds_objects(path):
                left.add("label files without an image (of a known kind), left out", path)


def _holds_objects(path: str) -> bool:
    """Whether the first line of a text file is an object's: there are lists of classes and images, too."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        words = file.readline().split()
    try:
        return len(words) >= 5 and all(map(math.isfinite, map(float, words)))
    except ValueError:
        return False


def _settings(folder: str) -> Dict[str, Any]:
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.y*ml"))):
        try:
            with open(path, encoding="utf-8-sig") as file:
                content = yaml.safe_load(file)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{path} is no readable YAML file: {error}") from None
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise DataError(f"{path} describes keypoints (kpt_shape); boxes and polygons are trained here.")
            return content
    return {}


def _names(folder: str, settings: Dict[str, Any]) -> Optional[List[str]]:
    names = settings.get("names")
    if "names" in settings:
        return _checked_names(names, settings.get("nc"), f"names of the YAML file in {folder}")
    path = os.path.join(folder, "classes.txt")
    return [line.strip() for line in lines_of(path) if line.strip()] if os.path.isfile(path) else None


def _checked_names(names: Any, number: Any, where: str) -> List[str]:
    if isinstance(names, dict):
        by_number = {int(key) if str(key).isdigit() else key: name for key, name in names.items()}
        if set(by_number) != set(range(len(names))):
            raise DataError(f"{where} must count its classes from 0, got {', '.join(map(str, names))}.")
        names = [by_number[k] for k in range(len(names))]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise DataError(f"{where} must be a list of names, or their numbers with names: names: [cat, 'no']; got {names!r:.100}.")
    if number is not None and number != len(names):
        raise DataError(f"{where}: there are {len(names)} ({', '.join(map(str, names))}), and nc says {number}. Which is right?")
    return [str(name) for name in names]


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)  # YAML reads no, off and on as one


def _images_of(folder: str, settings: Dict[str, Any], name: str) -> List[str]:
    """Images of a split, as the YAML file says, or where such folders usually are."""
    given = settings.get(name) or []
    bases = [os.path.join(folder, str(settings.get("path") or "")), folder]
    if given:
        several = given if isinstance(given, list) else [given]
        return [path for each in several for path in _listed(str(each), bases, folder)]
    for images in (os.path.join(folder, "images", name), os.path.join(folder, name, "images")):
        if os.path.isdir(images):
            return images_below(images)
    return []


def _listed(given: str, bases: Sequence[str], folder: str) -> List[str]:
    given = given.replace("\\", "/")
    for base in bases:
        # Exports write "../train/images" beside "train": the dots lead out of the folder.
        for path in (os.path.join(base, given), os.path.join(base, given.lstrip("./"))):
            if os.path.isdir(path):
                return images_below(os.path.normpath(path))
            if os.path.isfile(path):
                lines = [line.strip() for line in lines_of(path) if is_image(line.strip())]
                return [os.path.normpath(os.path.join(os.path.dirname(path), line)) for line in lines]
    raise DataError(
        f"{given!r}, which the YAML file in {folder} names, is neither a folder of images nor a list of them there."
    )


def _label_file(image: str) -> str:
    folder, name = os.path.split(image)
    parts = folder.split(os.sep)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return os.path.join(os.sep.join(parts), os.path.splitext(name)[0] + ".txt")


def _objects(path: str, image: Dict[str, Any], names: Optional[Sequence[str]], left: Left) -> List[Dict[str, Any]]:
    objects, seen = [], set()
    for number, line in enumerate(lines_of(path), 1):
        words, place = line.split(), f"{path}:{number}"
        if not words:
            continue
        if tuple(words) in seen:
            left.add("lines that stand twice, read once", place)
            continue
        seen.add(tuple(words))
        values = _numbers(words, place)
        category = _category(values[0], names, place)
        fault = _fault(values[1:])
        if fault:
            left.add_object(fault, place)
            continue
        objects.append({"category_id": category + 1, **_shape(values[1:], image["width"], image["height"])})
    return objects


def _numbers(words: Sequence[str], place: str) -> List[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) == 5 or (len(values) >= 7 and len(values) % 2):
        return values
    hint = " Six numbers are a prediction with its score." if len(values) == 6 else ""
    raise DataError(f"{place} is neither a box (class, cx, cy, w, h) nor a polygon (class, x1, y1, x2, y2, ...).{hint}")


def _category(value: float, names: Optional[Sequence[str]], place: str) -> int:
    if value < 0 or value != int(value) or (names and value >= len(names)):
        known = f"0 to {len(names) - 1}" if names else "whole numbers from 0"
        raise DataError(f"{place}: class {value:g} is not one of {known}.")
    return int(value)


def _fault(coordinates: Sequence[float]) -> str:
    if not all(map(math.isfinite, coordinates)):
        return "with coordinates that are not finite"
    if min(coordinates) < -_OUTSIDE or max(coordinates) > 1 + _OUTSIDE:
        return "with coordinates outside of 0 to 1"
    if len(coordinates) == 4:
        return "without area" if min(coordinates[2:]) <= 0 else ""
    xs, ys = coordinates[0::2], coordinates[1::2]
    return "without area" if max(xs) <= min(xs) or max(ys) <= min(ys) else ""


def _shape(values: Sequence[float], width: int, height: int) -> Dict[str, Any]:
    """``bbox`` in pixels, clipped to the image, with ``area``, and the ``segmentation`` of a polygon."""
    if len(values) == 4:
        cx, cy, w, h = values
        xs, ys, polygon = (cx - w / 2, cx + w / 2), (cy - h / 2, cy + h / 2), None
    else:
        xs, ys = values[0::2], values[1::2]
        polygon = [min(max(v, 0.0), 1.0) * size for x, y in zip(xs, ys) for v, size in ((x, width), (y, height))]
    x1, x2 = (min(max(v, 0.0), 1.0) * width for v in (min(xs), max(xs)))
    y1, y2 = (min(max(v, 0.0), 1.0) * height for v in (min(ys), max(ys)))
    shape = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
    if polygon:
        shape.update(segmentation=[polygon], area=_area(polygon))
    return shape


def _area(polygon: Sequence[float]) -> float:
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(xs[k - 1] * ys[k] - xs[k] * ys[k - 1] for k in range(len(xs)))) / 2
