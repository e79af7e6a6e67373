"""The folder of predictions: predictions.json, predictions.csv, pictures."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, List, Sequence

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from ..data.image_file import read_image
from ..evaluation.write_results import csv_text, write_text
from ..utils.drawing import draw_objects
from ..utils.errors import OutputError, usage
from ..utils.fonts import names_to_draw

__all__ = ["PredictionFolder", "drawable_names"]

_HEADER = ("file", "class", "score", "x1", "y1", "x2", "y2")


class PredictionFolder:
    """Takes what was found in each image, and writes it.

    Args:
        folder: it is made.
        images: paths of all images; an image's id is its place among them, from 1.
        overwrite: replace the predictions that the folder holds, and the pictures (``*.jpg`` in its ``pictures``).

    Raises ``OutputError`` where the folder cannot be written to, holds predictions, or has the images in its pictures.
    """

    def __init__(self, folder: str, images: Sequence[str], overwrite: bool = False):
        self.json, self.csv, self.pictures = (
            os.path.join(folder, name) for name in ("predictions.json", "predictions.csv", "pictures")
        )
        self._results: List[Dict[str, Any]] = []
        self._rows: List[Sequence[Any]] = []
        self._ids = {path: number for number, path in enumerate(images, start=1)}
        self._names = dict(zip(images, _picture_names(images)))
        self._old = [path for path in (self.json, self.csv, *self._old_pictures()) if os.path.exists(path)]
        self._refuse(folder, overwrite)
        with usage(f"--output {folder!r} cannot be written to", OSError, error=OutputError):
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass

    def _refuse(self, folder, overwrite):
        inside = [path for path in self._ids if _folder_of(path) == os.path.realpath(self.pictures)]
        if inside:
            raise OutputError(
                f"--output {folder!r}: its pictures would replace the image {inside[0]!r}. Choose another one."
            )
        if self._old and not overwrite:
            raise OutputError(
                f"--output {folder!r} holds predictions already ({self._old[0]}): choose another, or add --overwrite."
            )

    def clear(self) -> None:
        """Delete what is to be overwritten."""
        for path in self._old:
            os.remove(path)

    def _old_pictures(self):
        names = os.listdir(self.pictures) if os.path.isdir(self.pictures) else []
        return [os.path.join(self.pictures, name) for name in sorted(names) if name.endswith(".jpg")]

    def add(self, path: str, objects: List[Dict[str, Any]]) -> None:
        """Take the objects of an image, as ``Predictor.to_dicts`` gives them."""
        for item in objects:
            x1, y1, x2, y2 = item["box"]
            corner, end = np.float32([x1, y1]), np.float32([x2, y2])  # the sizes of the evaluation, to the last bit
            self._results.append(
                {
                    "image_id": self._ids[path],
                    "file_name": path,
                    "category_id": item["category_id"],
                    "bbox": [x1, y1, *(end - corner).tolist()],
                    "score": item["score"],
                    **{key: item[key] for key in ("segmentation", "mask_score", "keypoints") if key in item},
                }
            )
            self._rows.append((path, item["class"], item["score"], x1, y1, x2, y2))

    def draw(self, path: str, objects: List[Dict[str, Any]], names: Sequence[str]) -> None:
        """Write the picture of an image, in its own size; ``names``: of all classes, as fonts can write them."""
        image = Image.fromarray(read_image(path, format="RGB"))
        shown = [_drawn(item, names) for item in reversed(objects)]  # best on top
        with usage(f"--output: the picture of {path} cannot be written", OSError, error=OutputError):
            os.makedirs(self.pictures, exist_ok=True)
            draw_objects(image, shown).save(os.path.join(self.pictures, self._names[path]), quality=92)

    def write(self) -> None:
        """Write both files with all that was taken so far."""
        write_text(os.path.abspath(self.json), json.dumps(self._results) + "\n")
        write_text(os.path.abspath(self.csv), csv_text(_HEADER, self._rows))


def drawable_names(class_names: Sequence[str]) -> List[str]:
    """The names of all classes as they can be drawn; a number for each that no font here can write."""
    return names_to_draw(list(class_names), [f"class {k}" for k in range(len(class_names))])


def _drawn(item, names):
    mask = item.get("segmentation")
    return {
        "box": item["box"],
        "class_index": item["class_index"],
        "label": f"{names[item['class_index']]} {100 * item['score']:.0f}",
        "mask": None if mask is None else np.asarray(mask_util.decode(mask), dtype=bool),
    }


def _folder_of(path):
    return os.path.dirname(os.path.realpath(path))


def _picture_names(paths):
    """A file name for the picture of each image; equal ones get a number, also where only their case differs."""
    taken, names = set(), []
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.jpg")
    return names
