"""A small COCO-format data set of own drawings, for tests that write it in many ways."""

import copy
import json

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(number, image_id, x, y, side, category_id=3):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": [x, y, side, side], "iscrowd": 0,
            "area": side * side, "segmentation": [square(x, y, side)]}


SOUND = {
    "images": [{"id": k, "file_name": f"{k}.jpg", "width": WIDTH, "height": HEIGHT} for k in (7, 8, 9)],
    "annotations": [annotation(1, 7, 5, 6, 10), annotation(2, 7, 30, 10, 20, 5), annotation(3, 8, 40, 20, 15),
                    annotation(4, 9, 50, 30, 8, 5)],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}


def sound():
    """A copy of the content, to be changed."""
    return copy.deepcopy(SOUND)


def pixels(seed=0):
    """(HEIGHT, WIDTH, 3) of noise."""
    return np.random.RandomState(seed).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def draw(folder, content=SOUND):
    """Writes the images of ``content`` into ``folder``."""
    for k, image in enumerate(content["images"]):
        Image.fromarray(pixels(k)).save(str(folder / image["file_name"]))


def write(folder, content, name="a.json", **settings):
    """Path of ``content`` as a JSON file in ``folder``."""
    path = folder / name
    path.write_text(json.dumps(content, **settings), encoding="utf-8")
    return str(path)
