"""The ``Instances`` of several images as one, so that an operation on their rows is one operation, and back.

Shape shorthand: Ri: rows of image i; R: rows of all images.
"""

from typing import List, Sequence, Tuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..image_rows import first_rows, repeat, to_device

__all__ = ["join_images", "split_images", "take_rows"]


def join_images(images: List[Instances]) -> Instances:
    """The rows of all images, image after image, with the tensors and boxes that all images have. (Its image size is the
    first one's, and means nothing.)"""
    joined = Instances(images[0].image_size)
    for name, value in images[0].get_fields().items():
        if isinstance(value, (Tensor, Boxes)) and all(image.has(name) for image in images):
            values = [image.get(name) for image in images]
            joined.set(name, torch.cat(values) if isinstance(value, Tensor) else Boxes.cat(values))
    return joined


def split_images(joined: Instances, sizes: Sequence[int], image_sizes: Sequence[Tuple[int, int]]) -> List[Instances]:
    """One ``Instances`` an image again, of ``sizes`` rows, R together; they share memory with the joined ones."""
    images = [Instances(image_size) for image_size in image_sizes]
    for name, value in joined.get_fields().items():
        parts = value.split(sizes) if isinstance(value, Tensor) else map(Boxes, value.tensor.split(sizes))
        for image, part in zip(images, parts):
            image.set(name, part)
    return images


def take_rows(images: List[Instances], rows: List[Tensor]) -> List[Instances]:
    """``image[rows]`` for every image and its rows."""
    sizes = [len(each) for each in rows]
    first = to_device(first_rows([len(image) for image in images]), rows[0])
    joined = join_images(images)[torch.cat(rows) + repeat(first, sizes)]
    taken = split_images(joined, sizes, [image.image_size for image in images])
    for image, image_rows, result in zip(images, rows, taken):
        for name, value in image.get_fields().items():
            if not result.has(name):  # masks, whose size is the image's; what other images do not have
                result.set(name, value[image_rows])
    return taken
