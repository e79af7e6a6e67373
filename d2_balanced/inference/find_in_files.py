"""A detector goes through image and video files, and what it finds goes into a folder."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
from detectron2.structures import Instances
from PIL import Image
from tqdm import tqdm

from ..utils.errors import DataError
from .output import PredictionFolder, drawable_names, drawn
from .predictor import Predictor
from .reading import read_images
from .video import Frame, VideoReader, VideoWriter

__all__ = ["FindInFiles", "Wanted"]

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """Which objects are kept, how many images the model gets at once, how many processes read, whether to draw."""

    score: float = 0.5
    most: Optional[int] = None  # objects an image; None: all
    batch_size: int = 1
    workers: int = 0
    pictures: bool = True


class FindInFiles:
    """Goes through files; attributes count what was done.

    Attributes:
        faults: what is wrong with the files that could not be read, or not to their end.
        objects, images, frames: how many there were so far.
        best_score: of all that the detector found, also of what has too low a score to be kept; None: it found nothing.
    """

    def __init__(self, predictor: Predictor, folder: PredictionFolder, wanted: Wanted):
        self._predictor, self._folder, self._wanted = predictor, folder, wanted
        self._names = drawable_names(predictor.class_names) if wanted.pictures else []
        self.faults: List[str] = []
        self.objects = self.images = self.frames = 0
        self.best_score: Optional[float] = None

    def in_images(self, paths: Sequence[str]) -> None:
        """Add the objects of all images to the folder, in their order, and draw them."""
        wanted = self._wanted
        with tqdm(total=len(paths), unit="image", disable=None) as bar:
            for batch in read_images(self._predictor.reader, paths, wanted.batch_size, wanted.workers):
                self.faults += [image.fault for image in batch if image.fault]
                readable = [image for image in batch if not image.fault]
                for image, objects in zip(readable, self._objects([image.inputs for image in readable])):
                    self._folder.add(image.path, objects)
                    self.images += 1
                    if wanted.pictures:
                        self._folder.draw(image.path, objects, self._names)
                bar.update(len(batch))

    def in_video(self, path: str) -> None:
        """Add the objects of each frame of a video to the folder, and draw them into a copy of it."""
        with contextlib.ExitStack() as stack:
            try:
                video = stack.enter_context(VideoReader(path))
                copy = None
                if self._wanted.pictures:
                    copy = stack.enter_context(VideoWriter(self._folder.picture_of(path), video.rate))
                self._in_frames(path, video, copy)
            except DataError as error:
                self.faults.append(str(error))

    def _in_frames(self, path: str, video: VideoReader, copy: Optional[VideoWriter]) -> None:
        number = -1
        with tqdm(total=video.num_frames or None, unit="frame", disable=None) as bar:
            for batch in _batches(video, self._wanted.batch_size):
                found = self._objects([self._predictor.reader.inputs(frame.pixels) for frame in batch])
                for frame, objects in zip(batch, found):
                    self._folder.add(path, objects, frame.number, frame.time)
                    number, self.frames = frame.number, self.frames + 1
                    if copy is not None:
                        picture = drawn(Image.fromarray(frame.pixels), objects, self._names)
                        copy.write(frame._replace(pixels=np.asarray(picture)))
                bar.update(len(batch))
        if number + 1 < video.num_frames:
            logger.warning("%s says that it has %d frames; %d could be read.", path, video.num_frames, number + 1)

    def _objects(self, images: Sequence[List[Dict[str, Any]]]) -> List[List[Dict[str, Any]]]:
        """The objects of each image, whose inputs are given, best first."""
        wanted = self._wanted
        found = self._predictor.find(images, wanted.batch_size)
        best = [float(instances.scores.max()) for instances in found if len(instances)]
        self.best_score = max([*best, *([] if self.best_score is None else [self.best_score])], default=None)
        objects = [self._predictor.to_dicts(_best(instances, wanted.score, wanted.most)) for instances in found]
        self.objects += sum(map(len, objects))
        return objects


def _best(instances: Instances, score: float, most: Optional[int]) -> Instances:
    good = instances[instances.scores >= score]
    return good[good.scores.argsort(descending=True, stable=True)[:most]]


def _batches(frames: VideoReader, size: int) -> Iterator[List[Frame]]:
    """As many frames as are wanted at once; those before one that cannot be read are given first."""
    given, batch, fault = iter(frames), [], None
    while fault is None:
        try:
            batch = []
            for frame in itertools.islice(given, size):
                batch.append(frame)
        except DataError as error:
            fault = error
        if batch:
            yield batch
        if len(batch) < size and fault is None:
            return
    raise fault
