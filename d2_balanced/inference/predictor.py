"""A trained detector as a function of images.

    predictor = Predictor.from_run("output/mine")
    instances = predictor("photo.jpg")
    predictor.to_dicts(instances)
"""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from torch import nn

from ..data.class_names import distinct_names
from ..engine.augmented_test import augmented
from ..engine.open import open_checkpoint, open_run
from ..engine.start import require_device
from ..modeling.test_limits import limits_of
from ..utils.errors import ConfigError
from .reading import ImageLike, ImageReader
from .tiles import Tiles, merge_windows
from .to_supervision import detections_of

__all__ = ["Predictor"]

BEST = "model_best.pth"

logger = logging.getLogger(__name__)


class Predictor:
    """Finds objects in images, as the evaluation of the same model does.

    With one image at a time the detections are the evaluation's to the last bit: the files are read, resized and
    normalised by the same code. Several at once are computed in products of other sizes, whose last digits may differ.

    Args:
        model: a detector with weights, in detectron2's form: list of dicts in, list of ``{"instances": ...}`` out. It
            is left in evaluation mode, and stays on its device.
        mapper: the model's test mapper, data set dict -> the model's input (``experiment.build_mapper(False)``).
        class_names: of all classes, by class index.
        category_ids: ids of the classes in the annotation file of the training data; default: their indices.
        weights: path of the checkpoint, to be told.
        tiles: look at images that are larger than a tile also in tiles; ``None``: only as a whole.

    Attributes:
        reader: what makes the model's inputs of images, :class:`~.reading.ImageReader`.
    """

    def __init__(
        self,
        model: nn.Module,
        mapper,
        class_names: Sequence[str],
        category_ids: Sequence[int] = (),
        weights: str = "",
        tiles: Optional[Tiles] = None,
    ):
        self.reader = ImageReader(mapper, tiles)
        self.model = model.eval()
        self.class_names = list(class_names)
        self.category_ids = list(category_ids) or list(range(len(self.class_names)))
        self.weights = weights
        self._nms_thresh = limits_of(model).nms_thresh if tiles is not None else None

    @classmethod
    def from_run(
        cls,
        folder: Union[str, "os.PathLike[str]"],
        weights: str = "",
        *,
        device: str = "",
        overrides: Sequence[str] = (),
        tta: bool = False,
        tiles: Optional[Tiles] = None,
        check: Optional[Callable[[nn.Module], object]] = None,
    ) -> Predictor:
        """The detector of a run's output folder. The data that it was trained on may be gone.

        Args:
            folder: its config and classes are used.
            weights: path of a checkpoint; empty: ``model_best.pth`` where there is one, else the newest. The log and
                the attribute ``weights`` say which.
            device: "cpu", "cuda", "cuda:1", ...; empty: the config's, or the CPU where there is no GPU.
            overrides: changes of the config, ``["KEY", "value", ...]`` of a yaml run, ``["key=value", ...]`` of a lazy
                one.
            tta: with the config's test-time augmentation (``TEST.AUG``, ``train.test_aug``), enabled there or not.
            tiles: as above.
            check: is called with the model before its weights are loaded, and raises if it is no model to go on with.

        Raises ``ConfigError`` where there is no run, or one of a model that only proposes boxes, and for overrides that
        do not fit; ``CheckpointError`` where the checkpoint is not there, or of another model; ``LaunchError`` for a
        device that is not there.
        """
        folder = os.fspath(folder)
        experiment = open_run(folder, _without_weights(overrides))
        if device:
            experiment.set_run(device=require_device(device))
        best = os.path.join(folder, BEST)
        weights = weights or (best if os.path.isfile(best) else experiment.settings.weights)
        if not weights:
            raise ConfigError(f"The run in {folder!r} has no checkpoint yet: give one (--weights).")
        if experiment.num_classes is None:
            raise ConfigError(f"The model of {folder!r} only proposes boxes: it has no detections.")
        model = open_checkpoint(experiment, weights, check=check, needs_data=False)
        logger.info("Weights: %s", weights)
        if tta:
            model = augmented(experiment, model)
        ids, names = _classes(experiment)
        return cls(model, experiment.build_mapper(False), names, ids, weights, tiles)

    def __call__(self, images: Union[ImageLike, Sequence[ImageLike]], batch_size: int = 1):
        """The objects in an image, or in each of a list or tuple of images.

        Args:
            images: paths, Pillow images, or RGB arrays (H, W, 3) of uint8.
            batch_size: images, or windows of tiled images, that the model gets at once.

        Returns:
            ``Instances`` on the CPU, in the model's order, with ``pred_boxes`` (N, 4), x1, y1, x2, y2 in pixels of the
            image, ``scores`` (N,), ``pred_classes`` (N,), and ``pred_masks`` (N, H, W) of a model with masks; or a list
            of them, in the order of the images; an empty list of an empty one.

        Raises ``DataError`` for an image that cannot be read, ``ValueError`` for a batch size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be 1 or more, got {batch_size}")
        if not isinstance(images, (list, tuple)):
            return self.find([self.reader.inputs(images)], batch_size)[0]
        found: List[Instances] = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            found += self.find([self.reader.inputs(image) for image in batch], batch_size)
        return found

    @property
    def mapper(self):
        """The model's test mapper."""
        return self.reader.mapper

    def find(self, images: Sequence[List[Dict[str, Any]]], batch_size: int = 1) -> List[Instances]:
        """The ``Instances`` of each image, of which the inputs (``reader.inputs``) are given.

        The model gets inputs of one size together, ``batch_size`` at most: none is padded more than it would be alone.
        """
        given = [each for inputs in images for each in inputs]
        found: List[Instances] = [None] * len(given)
        for batch in _batches([each["image"].shape for each in given], batch_size):
            for index, instances in zip(batch, self.detect([given[index] for index in batch])):
                found[index] = instances
        if self.reader.tiles is None:
            return found
        merged = []
        for inputs in images:
            of_image, found = found[: len(inputs)], found[len(inputs) :]
            merged.append(merge_windows(of_image, [each["window"] for each in inputs], self._nms_thresh))
        return merged

    def read(self, image: ImageLike) -> Dict[str, Any]:
        """The model's input for one whole image, as :meth:`__call__` takes it; ``DataError`` if it cannot be read."""
        return self.reader.whole(image)

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
        masks, ``segmentation`` is COCO's run-length encoding; where these have scores of their own, ``mask_score``. An
        empty list where nothing was found.
        """
        boxes = instances.pred_boxes.tensor.tolist()
        found = instances_to_coco_json(instances, 0)
        if instances.has("mask_scores"):
            found = [{**each, "mask_score": score} for each, score in zip(found, instances.mask_scores.tolist())]
        return [
            {
                "class": self.class_names[each["category_id"]],
                "class_index": each["category_id"],
                "category_id": self.category_ids[each["category_id"]],
                "score": each["score"],
                "box": box,
                **{key: each[key] for key in ("segmentation", "mask_score", "keypoints") if key in each},
            }
            for box, each in zip(boxes, found)
        ]

    def to_supervision(self, instances: Instances):
        """The objects of one image as supervision's ``Detections``, class names in ``data["class_name"]``.

        Raises ``InstallError`` where supervision is not installed.
        """
        return detections_of(instances, self.class_names)


def _batches(shapes: Sequence[torch.Size], batch_size: int) -> List[List[int]]:
    """Indices of equal shapes, up to ``batch_size`` together."""
    by_shape: Dict[torch.Size, List[int]] = {}
    for index, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(index)
    return [same[k : k + batch_size] for same in by_shape.values() for k in range(0, len(same), batch_size)]


def _without_weights(overrides: Sequence[str]) -> Sequence[str]:
    given = [word for word in overrides if word == "MODEL.WEIGHTS" or word.startswith("train.init_checkpoint")]
    if given:
        raise ConfigError(f"{given[0]}: the checkpoint of a prediction is chosen by weights (--weights FILE).")
    return overrides


def _classes(experiment):
    """Category ids and names by class index; the index stands for both where the checkpoint does not know them."""
    if experiment.classes:
        ids, names = zip(*experiment.classes)
        return list(ids), distinct_names(names, ids)
    logger.warning("The checkpoint does not say what its classes are called: they are shown by their index.")
    return list(range(experiment.num_classes)), [f"class {k}" for k in range(experiment.num_classes)]
