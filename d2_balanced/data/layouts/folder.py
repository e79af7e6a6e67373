"""From a folder to annotation files and image folders: which layout it has, what is converted, what is set aside."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...utils.errors import ConfigError, DataError
from ..coco_json import read_lists
from ..json_cache import cached_json
from ..problems import Report
from . import coco_folder, voc_folder, yolo
from .records import Left, coco_content, count_classes, files_below

__all__ = ["FolderData", "data_of_folder", "set_aside"]

VERSION = 5
"""Part of the fingerprint that tells whether a converted file is still right."""

_LAYOUTS = {"COCO": coco_folder, "YOLO": yolo, "Pascal VOC": voc_folder}
"""Modules with ``find(folder)``; and ``read``, where the annotations are no COCO JSON yet."""


class FolderData(NamedTuple):
    """Annotation files and image folders, empty where there is no validation set, and what is to be said of them:
    ``notes``, and, as warnings, what was ``left_out`` or read otherwise than it stands in the files."""

    train_json: str
    train_images: str
    val_json: str
    val_images: str
    notes: Tuple[str, ...]
    left_out: Tuple[str, ...] = ()


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
    layouts = {name: module.find(folder) for name, module in _LAYOUTS.items()}
    found = {name: layout for name, layout in layouts.items() if layout}
    if not found:
        raise DataError(
            f"{folder} has no layout that is known: COCO (annotations/*.json, train/_annotations.coco.json), YOLO "
            "(data.yaml, images/train and labels/train, train/images and train/labels) or Pascal VOC "
            "(Annotations/*.xml, train/*.xml)."
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
    pairs, left_out = chosen, []
    if hasattr(_LAYOUTS[name], "read"):
        pairs, said, left_out = _converted(folder, name, layout, chosen)
        notes += said
    return _with_val(pairs, val_fraction, seed, notes)._replace(left_out=tuple(left_out))


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
    try:
        with open(json_file, "rb") as file:
            fingerprint = hashlib.sha256(file.read() + repr((VERSION, fraction, seed)).encode()).hexdigest()[:12]
    except OSError as error:
        raise DataError(f"annotation file {json_file} cannot be read ({error})") from None
    train, val = _kept(os.path.dirname(json_file), "d2_balanced_split", ("train", "val"), fingerprint,
                       lambda: _split(json_file, fraction, seed))  # fmt: skip
    notes.append(f"A share of {fraction:g} of the images is the validation set, drawn with seed {seed}.")
    return FolderData(train, images, val, images, tuple(notes))


def _split(json_file: str, fraction: float, seed: int) -> List[Dict[str, Any]]:
    """The content of a training and of a validation file."""
    report = Report(json_file)
    content = read_lists(json_file, report)
    report.raise_if_errors()
    # By name, so that the choice does not depend on the order in the file.
    order = sorted(range(len(content["images"])), key=lambda k: str(content["images"][k].get("file_name")))
    if len(order) < 2:
        raise DataError(f"{json_file} has {len(order)} image(s); a validation set needs one beside one of training.")
    count = min(max(round(fraction * len(order)), 1), len(order) - 1)
    aside = {order[k] for k in np.random.RandomState(seed).permutation(len(order))[:count]}
    parts: Tuple[List, List] = ([], [])
    for k, image in enumerate(content["images"]):
        parts[k in aside].append(image)
    return [_with_images(content, images) for images in parts]


def _with_images(content: Dict[str, Any], images: List[Dict[str, Any]]) -> Dict[str, Any]:
    ids = {str(image.get("id")) for image in images}
    annotations = [each for each in content.get("annotations", ()) if str(each.get("image_id")) in ids]
    return {**content, "images": images, "annotations": annotations}


def _converted(folder: str, name: str, layout: Dict[str, Any], splits: Sequence[Any]):
    """A pair of paths for each split, notes, and what was left out. These are kept in a file of their own."""
    files = ["notes", *("train", "val")[: len(splits)]]
    paths = _kept(folder, "d2_balanced_layouts", files, _fingerprint(folder, name, layout, splits),
                  lambda: _convert(folder, _LAYOUTS[name], layout, splits))  # fmt: skip
    with open(paths[0], encoding="utf-8") as file:
        said = json.load(file)
    return [(path, folder) for path in paths[1:]], said["notes"], said["left_out"]


def _kept(
    folder: str, cache: str, names: Sequence[str], fingerprint: str, make: Callable[[], Sequence[Any]]
) -> List[str]:
    """Paths of converted files, kept as by ``cached_json``; ``make``, called once at most, gives all their contents."""
    made: List[Any] = []

    def content(k: int) -> Any:
        made.extend(() if made else make())
        return made[k]

    files = [f"{name}-{fingerprint}.json" for name in names]
    return [cached_json(folder, cache, file, functools.partial(content, k)) for k, file in enumerate(files)]


def _convert(folder: str, module: Any, layout: Dict[str, Any], splits: Sequence[Any]) -> List[Any]:
    """What there is to say, and COCO JSON of every split, with the classes of all of them."""
    lefts = [Left() for _ in splits]
    records, classes = module.read(layout, splits, folder, lefts)
    notes, left_out, contents = [], [], []
    for split, read, left in zip(("training", "validation"), records, lefts):
        objects, by_class = count_classes(read)
        left.refuse_many(folder, objects, module.ADVICE)
        counts = ", ".join(f"{each} {by_class[k + 1]}" for k, each in enumerate(classes))
        notes.append(f"{split}: {len(read)} images, {objects} objects ({counts})")
        left_out += [f"{split}: {line}" for line in left.lines()]
        contents.append(coco_content(read, classes, [notes[-1], *left.lines()]))
    return [{"notes": notes, "left_out": left_out}, *contents]


def _fingerprint(folder: str, name: str, layout: Dict[str, Any], splits: Sequence[Any]) -> str:
    """Changes with the files of images and labels, by name, size and time, wherever they lie, and with this converter."""
    digest = hashlib.sha256(repr((VERSION, name, layout.get("names"), splits)).encode())
    elsewhere = (path for split in splits for source in split for path in _LAYOUTS[name].files_of(source))
    for path in sorted({*files_below(folder), *elsewhere}):
        try:
            status = os.stat(path)
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:  # a link to nothing
            digest.update(f"{path}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]
