"""From a data set dict to the model's input, with the crowds that detectron2's mapper leaves out."""

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, BoxMode

from ..modeling.ignore_regions import TargetsWithRegions

__all__ = ["IgnoreRegionMapper", "build_train_mapper"]


class IgnoreRegionMapper(DatasetMapper):
    """detectron2's mapper, with the boxes of crowd annotations (``iscrowd``) kept as the targets' ignore regions.

    An image without crowd annotations is mapped exactly as by ``DatasetMapper``; the others too, but for the class of
    ``instances`` (:class:`~d2_balanced.modeling.ignore_regions.TargetsWithRegions`). For training only.
    """

    def _transform_annotations(self, dataset_dict, transforms, image_shape):
        crowds = [a for a in dataset_dict["annotations"] if a.get("iscrowd", 0)]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in crowds]
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        if boxes:
            boxes = transforms.apply_box(np.array(boxes, dtype=np.float64))  # integers would be cut off by a resize
            regions = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
            regions.clip(image_shape)
            regions = regions[regions.nonempty()]
            dataset_dict["instances"] = TargetsWithRegions(dataset_dict["instances"], regions)


def build_train_mapper(cfg):
    """The mapper of a yacs config: detectron2's, or with ``INPUT.IGNORE_REGIONS`` the one that keeps crowds."""
    return (IgnoreRegionMapper if cfg.INPUT.IGNORE_REGIONS else DatasetMapper)(cfg, True)
