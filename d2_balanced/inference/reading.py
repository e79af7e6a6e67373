"""From images to what the model gets: files, arrays and Pillow images; whole and in tiles; by several processes."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

import detectron2.data.transforms as T
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..data.image_file import pixels_of, read_image
from ..utils.errors import ConfigError, DataError, usage
from ..utils.worker_signals import outlive_sigterm
from .tiles import Tiles

__all__ = ["ImageLike", "ImageReader", "ReadImage", "read_images"]

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, Image.Image]

Inputs = List[Dict[str, Any]]  # of one image


class ImageReader:
    """Makes the model's inputs of images, as the evaluation does of its files.

    Args:
        mapper: the model's test mapper, data set dict -> the model's input.
        tiles: give larger images also in tiles.

    Raises ``ConfigError`` without a mapper, and for one that wants precomputed proposals.
    """

    def __init__(self, mapper, tiles: Optional[Tiles] = None):
        if mapper is None:
            raise ConfigError("Predictor: no test mapper (LazyConfig: dataloader.test.mapper) to read images with.")
        if getattr(mapper, "proposal_topk", None) is not None:
            raise ConfigError("Predictor: this model needs precomputed proposals (MODEL.LOAD_PROPOSALS).")
        self.mapper = mapper
        self.tiles = tiles

    def whole(self, image: ImageLike) -> Dict[str, Any]:
        """The model's input for the whole image; raises ``DataError`` if it cannot be read."""
        if isinstance(image, (str, os.PathLike)):
            path = os.fspath(image)
            with usage(f"image file {path}", OSError, error=DataError):
                return self.mapper({"file_name": path})
        return self._mapped(self._pixels(image))

    def inputs(self, image: ImageLike) -> Inputs:
        """The model's inputs for an image: one, or with tiles one for each window, the first of which is the image.

        A window's input has its place in the image under ``window``. Raises ``DataError`` as :meth:`whole` does.
        """
        if self.tiles is None:
            return [self.whole(image)]
        pixels = self._pixels(image)
        windows = self.tiles.windows(*pixels.shape[:2])
        return [{**self._mapped(pixels[y1:y2, x1:x2]), "window": (x1, y1, x2, y2)} for x1, y1, x2, y2 in windows]

    def _pixels(self, image: ImageLike) -> np.ndarray:
        missing = [name for name in ("image_format", "augmentations") if not hasattr(self.mapper, name)]
        if missing:
            raise ConfigError(
                f"Predictor: {type(self.mapper).__name__} lacks {', '.join(missing)} of a DatasetMapper: it can be "
                "given paths only, and no tiles."
            )
        if isinstance(image, (str, os.PathLike)):
            return read_image(os.fspath(image), self.mapper.image_format)
        return pixels_of(_opened(image), self.mapper.image_format)

    def _mapped(self, pixels: np.ndarray) -> Dict[str, Any]:
        """What the mapper makes of an image file with these pixels."""
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        tensor = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}


def _opened(image: Union[np.ndarray, Image.Image]) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(
                "Predictor: an array has to be an RGB image (H, W, 3) of uint8; it is "
                f"{tuple(image.shape)} of {image.dtype}."
            )
        return Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise DataError(f"Predictor: an image is a path, an array or a Pillow image, not a {type(image).__name__}.")
    return image


class ReadImage(NamedTuple):
    """An image file's model inputs, or what is wrong with it."""

    path: str
    inputs: Inputs
    fault: str


class _Files(Dataset):
    def __init__(self, reader: ImageReader, paths: Sequence[str]):
        self._reader = reader
        self._paths = paths

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index):
        path = self._paths[index]
        try:
            return ReadImage(path, self._reader.inputs(path), "")
        except DataError as error:
            return ReadImage(path, [], str(error))


def read_images(
    reader: ImageReader, paths: Sequence[str], batch_size: int = 1, workers: int = 0
) -> Iterator[List[ReadImage]]:
    """The image files in their order, ``batch_size`` at once; those that cannot be read stand there with their fault.

    Args:
        workers: processes that read ahead; 0: each batch is read when it is wanted.
    """
    loader: DataLoader = DataLoader(
        _Files(reader, paths), batch_size, num_workers=workers, collate_fn=list, worker_init_fn=outlive_sigterm
    )
    return iter(loader)
