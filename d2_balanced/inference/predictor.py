"""A trained detector as a function of images.

    predictor = Predictor.from_run("output/mine")
    instances = predictor("photo.jpg")
    predictor.to_dicts(instances)
"""

from __future__ import annotations

import logging
import os
from typing import Any, Dict, List, Sequence, Union

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from ..data.class_names import distinct_names
from ..data.image_file import pixels_of
from ..engine.open import open_checkpoint, open_run
from ..utils.errors import ConfigError, DataError, usage

__all__ = ["Predictor"]

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, Image.Image]

BEST = "model_best.pth"

logger = logging.getLogger(__name__)


class Predictor:
    """Finds objects in images, as the evaluation of the same model does.

    With one image at a time the detections are the evaluation's to the last bit: the files are read, resized and
    normalised by the same code. Larger batches pad their images to one size, which moves the last digits.

    Args:
        model: a detector with weights, in detectron2's form: list of dicts in, list of ``{"instances": ...}`` out. It
            is left in evaluation mode, and stays on its device.
        mapper: the model's test mapper, data set dict -> the model's input (``experiment.build_mapper(False)``).
        class_names: of all classes, by class index.
        category_ids: ids of the classes in the annotation file of the training data; default: their indices.
        weights: path of the checkpoint, to be told.
    """

    def __init__(
        self,
        model: nn.Module,
        mapper,
        class_names: Sequence[str],
        category_ids: Sequence[int] = (),
        weights: str = "",
    ):
        if mapper is None:
            raise ConfigError("Predictor: no test mapper (LazyConfig: dataloader.test.mapper) to read images with.")
        if getattr(mapper, "proposal_topk", None) is not None:
            raise ConfigError("Predictor: this model needs precomputed proposals (MODEL.LOAD_PROPOSALS).")
        self.model = model.eval()
        self.mapper = mapper
        self.class_names = list(class_names)
        self.category_ids = list(category_ids) or list(range(len(self.class_names)))
        self.weights = weights

    @classmethod
    def from_run(cls, folder: Union[str, "os.PathLike[str]"], weights: str = "") -> Predictor:
        """The detector of a run's output folder. The data that it was trained on may be gone.

        Args:
            folder: its config and classes are used.
            weights: path of a checkpoint; empty: ``model_best.pth`` where there is one, else the newest. The log and
                the attribute ``weights`` say which.

        Raises ``ConfigError`` where there is no run, or one of a model that only proposes boxes, and
        ``CheckpointError`` where the checkpoint is not there, or of another model.
        """
        folder = os.fspath(folder)
        experiment = open_run(folder)
        best = os.path.join(folder, BEST)
        weights = weights or (best if os.path.isfile(best) else experiment.settings.weights)
        if not weights:
            raise ConfigError(f"The run in {folder!r} has no checkpoint yet: give one (--weights).")
        if experiment.num_classes is None:
            raise ConfigError(f"The model of {folder!r} only proposes boxes: it has no detections.")
        model = open_checkpoint(experiment, weights, needs_data=False)
        logger.info("Weights: %s", weights)
        ids, names = _classes(experiment)
        return cls(model, experiment.build_mapper(False), names, ids, weights)

    def __call__(self, images: Union[ImageLike, Sequence[ImageLike]], batch_size: int = 1):
        """The objects in an image, or in each of a list or tuple of images.

        Args:
            images: paths, Pillow images, or RGB arrays (H, W, 3) of uint8.
            batch_size: images that the model gets at once.

        Returns:
            ``Instances`` on the CPU, in the model's order, with ``pred_boxes`` (N, 4), x1, y1, x2, y2 in pixels of the
            image, ``scores`` (N,), ``pred_classes`` (N,), and ``pred_masks`` (N, H, W) of a model with masks; or a list
            of them, in the order of the images; an empty list of an empty one.

        Raises ``DataError`` for an image that cannot be read, ``ValueError`` for a batch size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be 1 or more, got {batch_size}")
        if not isinstance(images, (list, tuple)):
            return self.detect([self.read(images)])[0]
        found: List[Instances] = []
        for start in range(0, len(images), batch_size):
            found += self.detect([self.read(image) for image in images[start : start + batch_size]])
        return found

    def read(self, image: ImageLike) -> Dict[str, Any]:
        """The model's input for one image, as :meth:`__call__` takes it; raises ``DataError`` if it cannot be read."""
        if isinstance(image, (str, os.PathLike)):
            path = os.fspath(image)
            with usage(f"image file {path}", OSError, error=DataError):
                return self.mapper({"file_name": path})
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise DataError(
                    "Predictor: an array has to be an RGB image (H, W, 3) of uint8; it is "
                    f"{tuple(image.shape)} of {image.dtype}."
                )
            image = Image.fromarray(np.ascontiguousarray(image))
        if not isinstance(image, Image.Image):
            raise DataError(f"Predictor: an image is a path, an array or a Pillow image, not a {type(image).__name__}.")
        return self._mapped(image)

    def _mapped(self, image: Image.Image) -> Dict[str, Any]:
        """What the mapper makes of an image file, for an image that is in no file."""
        missing = [name for name in ("image_format", "augmentations") if not hasattr(self.mapper, name)]
        if missing:
            raise ConfigError(
                f"Predictor: {type(self.mapper).__name__} lacks {', '.join(missing)} of a DatasetMapper: give paths."
            )
        pixels = pixels_of(image, self.mapper.image_format)
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        tensor = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}

    def detect(self, inputs: List[Dict[str, Any]]) -> List[Instances]:
        """The ``Instances`` of each of the model's inputs (:meth:`read`), which it gets as one batch."""
        if not inputs:
            return []
        with torch.no_grad():
            outputs = self.model(inputs)
        if any("instances" not in output for output in outputs):
            raise ConfigError("Predictor: this model has no detections; it only proposes boxes.")
        return [output["instances"].to("cpu") for output in outputs]

    def to_dicts(self, instances: Instances) -> List[Dict[str, Any]]:
        """Each object of one image as ``{"class", "class_index", "category_id", "score", "box"}``, of plain Python.

        ``box`` is [x1, y1, x2, y2] in pixels, ``category_id`` the class's id in the training data. Where there are
        masks, ``segmentation`` is COCO's run-length encoding. An empty list where nothing was found.
        """
        boxes = instances.pred_boxes.tensor.tolist()
        return [
            {
                "class": self.class_names[found["category_id"]],
                "class_index": found["category_id"],
                "category_id": self.category_ids[found["category_id"]],
                "score": found["score"],
                "box": box,
                **{key: found[key] for key in ("segmentation", "keypoints") if key in found},
            }
            for box, found in zip(boxes, instances_to_coco_json(instances, 0))
        ]


def _classes(experiment):
    """Category ids and names by class index; the index stands for both where the checkpoint does not know them."""
    if experiment.classes:
        ids, names = zip(*experiment.classes)
        return list(ids), distinct_names(names, ids)
    logger.warning("The checkpoint does not say what its classes are called: they are shown by their index.")
    return list(range(experiment.num_classes)), [f"class {k}" for k in range(experiment.num_classes)]
