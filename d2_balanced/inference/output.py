"""The folder of predictions: predictions.json, predictions.csv, pictures, videos."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from ..data.image_file import read_image
from ..evaluation.write_results import csv_rows
from ..utils.atomic import atomic_write
from ..utils.drawing import draw_objects
from ..utils.errors import OutputError, usage
from ..utils.fonts import names_to_draw
from ..utils.output_folder import require_writable
from .video import is_video

__all__ = ["PredictionFolder", "drawable_names", "drawn"]

_HEADER = ("file", "class", "score", "x1", "y1", "x2", "y2")
_OF_FRAMES = ("frame", "time")  # more columns where there is a video
_MADE = {"pictures": ".jpg", "videos": ".mp4"}  # folders and the ends of their files' names


class PredictionFolder:
    """Takes what was found in each image or frame, and writes it; nothing of it stays in memory.

    Args:
        folder: it is made.
        paths: of all images and videos; an image's id is its place among them, from 1.
        overwrite: replace the predictions that the folder holds, with all ``*.jpg`` in its ``pictures`` and ``*.mp4``
            in its ``videos``.

    Raises ``OutputError`` where the folder cannot be written to, holds predictions, or has the images in its pictures.
    """

    def __init__(self, folder: str, paths: Sequence[str], overwrite: bool = False):
        self.json, self.csv = (os.path.join(folder, name) for name in ("predictions.json", "predictions.csv"))
        self._made = {os.path.join(folder, name): ending for name, ending in _MADE.items()}
        self.pictures, self.videos = self._made
        self._ids = {path: number for number, path in enumerate(paths, start=1)}
        images, videos = [p for p in paths if not is_video(p)], [p for p in paths if is_video(p)]
        self._pictures = {
            **dict(zip(images, _names_in(self.pictures, ".jpg", images))),
            **dict(zip(videos, _names_in(self.videos, ".mp4", videos))),
        }
        self._columns = _HEADER + (_OF_FRAMES if videos else ())
        self._old = [path for path in (self.json, self.csv, *self._old_pictures()) if os.path.exists(path)]
        self._refuse(folder, overwrite)
        require_writable(folder)

    def _refuse(self, folder, overwrite):
        places = {os.path.realpath(place) for place in self._made}
        inside = [path for path in self._ids if _folder_of(path) in places]
        if inside:
            raise OutputError(
                f"--output {folder!r}: its pictures would replace the image {inside[0]!r}. Choose another one."
            )
        if self._old and not overwrite:
            raise OutputError(
                f"--output {folder!r} holds predictions already ({self._old[0]}): choose another, or add --overwrite."
            )

    def _old_pictures(self):
        for place, ending in self._made.items():
            names = os.listdir(place) if os.path.isdir(place) else []
            yield from (os.path.join(place, name) for name in sorted(names) if name.endswith(ending))

    @contextlib.contextmanager
    def writing(self) -> Iterator[PredictionFolder]:
        """Deletes what is to be overwritten; both files are there when the context ends, be it by an error."""
        for path in self._old:
            os.remove(path)
        with atomic_write(self.json, "w") as self._json, atomic_write(self.csv, "w") as self._csv:
            self._json.write("[")
            self._csv.write(csv_rows([self._columns]))
            self._separator = "\n"
            error = None
            try:
                yield self
            except BaseException as raised:
                error = raised
            self._json.write("\n]\n")
        if error is not None:
            raise error

    def add(self, path: str, objects: List[Dict[str, Any]], frame: int = 0, time: float = 0.0) -> None:
        """Write the objects of an image, as ``Predictor.to_dicts`` gives them, or of the frame of a video."""
        of_frame = dict(zip(_OF_FRAMES, (frame, time))) if is_video(path) else {}
        rows = []
        for item in objects:
            x1, y1, x2, y2 = item["box"]
            corner, end = np.float32([x1, y1]), np.float32([x2, y2])  # the sizes of the evaluation, to the last bit
            result = {
                "image_id": self._ids[path],
                "file_name": path,
                **of_frame,
                "category_id": item["category_id"],
                "bbox": [x1, y1, *(end - corner).tolist()],
                "score": item["score"],
                **{key: item[key] for key in ("segmentation", "mask_score", "keypoints") if key in item},
            }
            self._json.write(self._separator + json.dumps(result))
            self._separator = ",\n"
            row = (path, item["class"], item["score"], x1, y1, x2, y2, *of_frame.values())
            rows.append(row + ("",) * (len(self._columns) - len(row)))
        self._csv.write(csv_rows(rows))

    def picture_of(self, path: str) -> str:
        """Where the picture of an image, or the copy of a video, is written to."""
        return self._pictures[path]

    def draw(self, path: str, objects: List[Dict[str, Any]], names: Sequence[str]) -> None:
        """Write the picture of an image, in its own size; ``names``: of all classes, as fonts can write them."""
        image = Image.fromarray(read_image(path, format="RGB"))
        with usage(f"--output: the picture of {path} cannot be written", OSError, error=OutputError):
            os.makedirs(self.pictures, exist_ok=True)
            drawn(image, objects, names).save(self.picture_of(path), quality=92)


def drawn(image: Image.Image, objects: List[Dict[str, Any]], names: Sequence[str]) -> Image.Image:
    """A copy of an image with its objects, the best on top; ``names``: of all classes, as fonts can write them."""
    return draw_objects(image, [_shown(item, names) for item in reversed(objects)])


def drawable_names(class_names: Sequence[str]) -> List[str]:
    """The names of all classes as they can be drawn; a number for each that no font here can write."""
    return names_to_draw(list(class_names), [f"class {k}" for k in range(len(class_names))])


def _shown(item, names):
    mask = item.get("segmentation")
    return {
        "box": item["box"],
        "class_index": item["class_index"],
        "label": f"{names[item['class_index']]} {100 * item['score']:.0f}",
        "mask": None if mask is None else np.asarray(mask_util.decode(mask), dtype=bool),
    }


def _folder_of(path):
    return os.path.dirname(os.path.realpath(path))


def _names_in(folder, ending, paths):
    """A file for the picture of each image; equal names get a number, also where only their case differs."""
    taken, names = set(), []
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(os.path.join(folder, name + ending))
    return names
