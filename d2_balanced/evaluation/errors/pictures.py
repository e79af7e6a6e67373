"""The worst images as pictures: the ground truth, and beside it what was found, missed and invented."""

import base64
import io

import numpy as np
from PIL import Image

from ...data.image_file import read_image
from ...utils.drawing import draw_objects, side_by_side
from ...utils.errors import DataError
from .match import KINDS

__all__ = ["FALSE", "FOUND", "MISSED", "Painter", "paint", "worst"]

FOUND, FALSE, MISSED = (61, 153, 112), (214, 64, 48), (255, 176, 0)
_PANEL = 480  # pixels of a panel's longer side
_QUALITY = 85


def worst(rows, number):
    """The images with the most mistakes (missed and false), of ``tally.by_image``: their indices, the worst first."""
    mistakes = np.array([row["missed"] + row["false"] for row in rows], dtype=int)
    order = np.argsort(-mistakes, kind="stable")[:number]
    return [int(k) for k in order if mistakes[k]]


def _jpeg_source(picture):
    """A Pillow image as the ``src`` of an ``<img>``."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


class Painter:
    """Draws images of one data set.

    Args:
        path_of: the file of an image by its internal id.
        names: of the classes, as they can be drawn.
    """

    def __init__(self, path_of, names):
        self._path_of, self._names = path_of, names

    def picture(self, image, *runs, titles=("",)):
        """The ground truth, and a panel for each run, (its :class:`Matches`, the least score that counts).

        ``DataError`` if the image cannot be read.
        """
        pixels = Image.fromarray(read_image(self._path_of(image), format="RGB"))
        scale = min(_PANEL / max(pixels.size), 4.0)
        boxes = runs[0][0]
        rows = np.flatnonzero(boxes.object_image == image)
        truth = [self._item(boxes.object_box[o], boxes.object_label[o]) for o in rows]
        panels = [draw_objects(pixels, truth, scale)]
        panels += [draw_objects(pixels, self._mistakes(*run, image), scale) for run in runs]
        return side_by_side(panels, ["1 object" if len(rows) == 1 else f"{len(rows)} objects", *titles])

    def _mistakes(self, matches, score, image):
        """What was found without a name, then false boxes with what is wrong with them, and missed objects."""
        kept = np.flatnonzero((matches.image == image) & matches.kept(score))
        objects = np.flatnonzero((matches.object_image == image) & ~matches.found(score))
        right, wrong = kept[matches.kind[kept] < 0], kept[matches.kind[kept] >= 0]
        found = [self._item(matches.box[d], matches.label[d], FOUND, "") for d in right]
        missed = [self._item(matches.object_box[o], matches.object_label[o], MISSED, "missed: {}") for o in objects]
        false = [
            self._item(matches.box[d], matches.label[d], FALSE,
                       f"{{}} {100 * matches.score[d]:.0f}: {tuple(KINDS)[matches.kind[d]]}")
            for d in wrong[::-1]
        ]  # fmt: skip
        return found + missed + false

    def _item(self, box, label, color=None, text="{}"):
        x, y, width, height = box
        item = {"box": (x, y, x + width, y + height), "class_index": int(label), "label": ""}
        item["label"] = text.replace("{}", self._names[label])
        return {**item, "color": color} if color else item


def paint(painter, image, *runs, titles):
    """``(picture as a source, "")``, or ``("", why not)`` where the image cannot be read."""
    try:
        return _jpeg_source(painter.picture(image, *runs, titles=titles)), ""
    except DataError as error:
        return "", str(error)
