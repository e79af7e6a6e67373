"""From a folder to annotation files and image folders: which layout it has, what is converted, what is set aside."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...utils.errors import ConfigError, DataError
from ..coco_json import read_lists
from ..json_cache import CONVERTED, cached_json
from ..problems import Report
from . import coco_folder, voc_folder, yolo
from .records import Left, coco_content, count_classes

__all__ = ["FolderData", "data_of_folder", "set_aside"]

VERSION = 1
"""Part of the fingerprint that tells whether a converted file is still right."""

_LAYOUTS: Dict[str, Callable[[str], Optional[Dict[str, Any]]]] = {
    "COCO": coco_folder.find, "YOLO": yolo.find, "Pascal VOC": voc_folder.find,
}


class FolderData(NamedTuple):
    """Annotation files and image folders, empty where there is no validation set, and what is to be said of them."""

    train_json: str
    train_images: str
    val_json: str
    val_images: str
    notes: Tuple[str, ...]


def data_of_folder(folder: str, val_fraction: Optional[float] = None, seed: int = 0) -> FolderData:
    """The data of a folder in COCO's layout (Roboflow's export, too), YOLO's or Pascal VOC's.

    What is not COCO JSON is converted to it once; the files are kept beside the data (``coco_format``), or in fvcore's
    cache.

    Args:
        val_fraction: share of the training images that becomes the validation set, where the folder has none.
        seed: of the choice of these images.

    Raises:
        DataError: no layout, more than one, or something broken in the files; names it.
        ConfigError: a share that is none, or for a folder with a validation set.
    """
    folder = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(folder):
        what = "is a file; give the folder of the data" if os.path.exists(folder) else "does not exist"
        raise DataError(f"The folder {folder} {what}.")
    found = {name: layout for name, layout in ((name, find(folder)) for name, find in _LAYOUTS.items()) if layout}
    if not found:
        raise DataError(
            f"{folder} has no layout that is known: COCO (annotations/*.json, train/_annotations.coco.json), YOLO "
            "(data.yaml, images/train and labels/train, train/images and train/labels) or Pascal VOC (Annotations/*.xml, "
            "train/*.xml)."
        )
    if len(found) > 1:
        raise DataError(f"{folder} has several layouts: {', '.join(found)}. Give the folder of one, or --train-json.")
    ((name, layout),) = found.items()
    splits, notes = dict(layout["splits"]), [f"{folder}: {name} layout"]
    if "train" not in splits:
        raise DataError(f"{folder} ({name} layout) has no training set, only {', '.join(splits)}.")
    if "val" not in splits and "test" in splits and val_fraction is None:
        splits["val"] = splits["test"]
        notes.append("There is no validation set: the test set serves for it.")
    chosen = [splits["train"], *([splits["val"]] if "val" in splits else [])]
    if name == "COCO":
        pairs = [tuple(pair) for pair in chosen]
    else:
        pairs = _converted(folder, name, layout, chosen, notes)
    return _with_val(pairs, val_fraction, seed, notes)


def set_aside(json_file: str, images: str, fraction: float, seed: int = 0) -> FolderData:
    """Splits one annotation file into a training and a validation file, by images; arguments and errors as above."""
    return _with_val([(json_file, images)], fraction, seed, [])


def _with_val(pairs: Sequence[Tuple[str, str]], fraction: Optional[float], seed: int, notes: List[str]) -> FolderData:
    if fraction is None:
        val = pairs[1] if len(pairs) > 1 else ("", "")
        if len(pairs) == 1:
            notes.append("There is no validation set, so nothing is evaluated; --val-fraction 0.2 sets images aside.")
        return FolderData(*pairs[0], *val, tuple(notes))
    if len(pairs) > 1:
        raise ConfigError(f"--val-fraction is for data without a validation set; these have one: {pairs[1][0]}.")
    if not 0 < fraction < 1:
        raise ConfigError(f"--val-fraction must be above 0 and below 1, got {fraction:g}.")
    (json_file, images), = pairs
    train, val = (_part(json_file, fraction, seed, part) for part in ("train", "val"))
    notes.append(f"A share of {fraction:g} of the images is the validation set, drawn with seed {seed}.")
    return FolderData(train, images, val, images, tuple(notes))


def _part(json_file: str, fraction: float, seed: int, part: str) -> str:
    def convert():
        report = Report(json_file)
        content = read_lists(json_file, report)
        report.raise_if_errors()
        return _split(content, fraction, seed, part, json_file)

    with open(json_file, "rb") as file:
        fingerprint = hashlib.sha256(file.read() + repr((VERSION, fraction, seed)).encode()).hexdigest()[:12]
    return cached_json(os.path.dirname(json_file), "d2_balanced_split", f"{part}-{fingerprint}.json", convert)


def _split(content: Dict[str, Any], fraction: float, seed: int, part: str, json_file: str) -> Dict[str, Any]:
    # By name, so that the choice does not depend on the order in the file.
    order = sorted(range(len(content["images"])), key=lambda k: str(content["images"][k].get("file_name")))
    if len(order) < 2:
        raise DataError(f"{json_file} has {len(order)} image(s); a validation set needs one beside one of training.")
    count = min(max(round(fraction * len(order)), 1), len(order) - 1)
    aside = {order[k] for k in np.random.RandomState(seed).permutation(len(order))[:count]}
    images = [image for k, image in enumerate(content["images"]) if (k in aside) == (part == "val")]
    ids = {str(image.get("id")) for image in images}
    annotations = [each for each in content.get("annotations", ()) if str(each.get("image_id")) in ids]
    return {**content, "images": images, "annotations": annotations}


def _converted(folder: str, name: str, layout: Dict[str, Any], splits: Sequence[Any], notes: List[str]):
    """A pair of paths for each split; the notes of the conversion are kept in the files."""
    fingerprint = _fingerprint(folder, name, layout, splits)
    pairs, made = [], {}
    for k, split in enumerate(("train", "val")[: len(splits)]):

        def convert(k=k):
            if not made:
                made.update(enumerate(_convert(folder, name, layout, splits)))
            return made[k]

        path = cached_json(folder, "d2_balanced_layouts", f"{split}-{fingerprint}.json", convert)
        with open(path, encoding="utf-8") as file:
            notes.extend(json.load(file)["info"]["notes"])
        pairs.append((path, folder))
    return pairs


def _convert(folder: str, name: str, layout: Dict[str, Any], splits: Sequence[Any]) -> List[Dict[str, Any]]:
    """COCO JSON of every split, with the classes of all of them."""
    lefts, records, classes = [Left() for _ in splits], [], []
    for files, left in zip(splits, lefts):
        if name == "YOLO":
            read, names = yolo.read(files, folder, layout["names"], left)
        else:
            read, names = voc_folder.read(files, folder, left)
        records.append(read)
        classes = max(classes, names, key=len) if name == "YOLO" else sorted({*classes, *names})
    for record in (each for read in records for each in read):
        for annotation in record["annotations"]:
            if "name" in annotation:
                annotation["category_id"] = classes.index(annotation.pop("name")) + 1
    contents = []
    for split, read, left in zip(("training", "validation"), records, lefts):
        objects, by_class = count_classes(read)
        counts = ", ".join(f"{each} {by_class[k + 1]}" for k, each in enumerate(classes))
        notes = [f"{split}: {len(read)} images, {objects} objects ({counts})", *left.lines()]
        contents.append(coco_content(read, classes, notes))
    return contents


def _fingerprint(folder: str, name: str, layout: Dict[str, Any], splits: Sequence[Any]) -> str:
    """Changes with the files of images and labels, by name, size and time, and with this converter."""
    digest = hashlib.sha256(repr((VERSION, name, layout.get("names"), splits)).encode())
    for where, folders, names in sorted(os.walk(folder)):
        if os.path.basename(where) == CONVERTED:
            continue
        for each in sorted(names):
            status = os.stat(os.path.join(where, each))
            digest.update(f"{os.path.join(where, each)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
