"""From a data set dict to the model's input: images opened in one way, crowds kept where they are wanted."""

import copy

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes, BoxMode

from ..modeling.ignore_regions import TargetsWithRegions
from ..utils.errors import Refusal
from .image_file import read_image

__all__ = ["BalancedMapper", "IgnoreRegionMapper", "build_mapper"]


class BalancedMapper(DatasetMapper):
    """detectron2's mapper, but for the opening of the image (:mod:`.image_file`), for which that one has no seam.

    Equal to ``DatasetMapper`` for every image that detectron2 reads as it is meant. Without semantic segmentation.

    Args:
        is_train, kwargs: as for ``DatasetMapper``.
        clip_boxes: clip the objects' boxes to the image, as detectron2 does. Without it, boxes that reach beyond the image,
            as the full bodies of CrowdHuman do, train as they are; those without any part in the image are left out.

    Raises ``Refusal`` for boxes that are not to be clipped, but to be made anew of cropped masks.
    """

    @configurable
    def __init__(self, is_train: bool, *, clip_boxes: bool = True, **kwargs):
        super().__init__(is_train, **kwargs)
        self.clip_boxes = clip_boxes
        if self.recompute_boxes and not clip_boxes:
            crop = "crops of images with masks (INPUT.CROP, recompute_boxes)"
            raise Refusal("clip_boxes=False (INPUT.CLIP_BOXES)", crop, "the boxes are made anew of the cropped masks")

    @classmethod
    def from_config(cls, cfg, is_train: bool = True):
        return {**super().from_config(cfg, is_train), "clip_boxes": cfg.INPUT.CLIP_BOXES}

    def __call__(self, dataset_dict):
        """The model's input for a data set dict; raises :class:`DataError` for an image that is refused."""
        record = copy.deepcopy(dataset_dict)
        image = read_image(record["file_name"], format=self.image_format)
        utils.check_image_size(record, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        size = augmented.image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            if self.use_instance_mask:  # the few objects without a mask that the check of the data let pass
                record["annotations"] = [a for a in record["annotations"] if "segmentation" in a or a.get("iscrowd", 0)]
            self._transform_annotations(record, transforms, size)
        return record

    def _transform_annotations(self, dataset_dict, transforms, image_shape):
        if self.clip_boxes:
            return super()._transform_annotations(dataset_dict, transforms, image_shape)
        objects = [a for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        boxes = _transformed(objects, transforms)
        classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
        for number, each in enumerate(objects):  # detectron2 leaves some out, and does not say which
            each["category_id"] = number
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        kept = instances.gt_classes
        instances.gt_boxes, instances.gt_classes = Boxes(boxes[kept]), classes[kept]


class IgnoreRegionMapper(BalancedMapper):
    """The mapper with the boxes of crowd annotations (``iscrowd``) kept as the targets' ignore regions.

    An image without crowd annotations is mapped exactly as by ``BalancedMapper``; the others too, but for the class of
    ``instances`` (:class:`~d2_balanced.modeling.ignore_regions.TargetsWithRegions`). For training only.
    """

    def _transform_annotations(self, dataset_dict, transforms, image_shape):
        crowds = [a for a in dataset_dict["annotations"] if a.get("iscrowd", 0)]
        regions = Boxes(_transformed(crowds, transforms))
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        if crowds:
            regions.clip(image_shape)
            regions = regions[regions.nonempty()]
            dataset_dict["instances"] = TargetsWithRegions(dataset_dict["instances"], regions)


def _transformed(annotations, transforms):
    """The annotations' boxes (N, 4) after the augmentations, XYXY; integers would be cut off by a resize."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return torch.as_tensor(transforms.apply_box(boxes) if len(boxes) else boxes, dtype=torch.float32)


def build_mapper(cfg, is_train):
    """The mapper of a yacs config; in training with ``INPUT.IGNORE_REGIONS`` the one that keeps crowds."""
    return (IgnoreRegionMapper if is_train and cfg.INPUT.IGNORE_REGIONS else BalancedMapper)(cfg, is_train)
