"""Ranking by class score and by predicted IoU, measured on a data set (IoU-Uniform R-CNN, figures 7 and 8)."""

from __future__ import annotations

from typing import Dict, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou

from ..evaluation import summary
from ..utils.errors import ConfigError
from .nms_recall import MATCHING_IOUS, NmsRecall
from .predicted_iou import agreement
from .scored_boxes import find, objects_of

__all__ = ["Scores", "mean_and_sd", "measure"]


class Scores(NamedTuple):
    """What was measured on the candidates of one checkpoint on one data set."""

    recall: NmsRecall
    ious: Dict[str, np.ndarray]
    """Predicted IoU (n,) of the refined boxes of all images, with EFO and without; empty without a predictor."""
    true: np.ndarray
    """(n,), their IoU with the object that they overlap best, of any class."""

    def summary(self, min_iou=0.5):
        """The numbers of both figures as plain Python; see ``NmsRecall.summary`` and ``predicted_iou.agreement``."""
        return {
            "images": self.recall.images,
            "objects": self.recall.objects,
            "recall_at": list(MATCHING_IOUS),
            "recall_after_nms": self.recall.summary(limited=False),
            "recall_of_detections": self.recall.summary(limited=True),
            "predicted_iou": {name: agreement(ious, self.true, min_iou) for name, ious in self.ious.items()},
        }


def measure(model, mapper, records):
    """:class:`Scores` of a model.

    Args:
        model: a detector with ``BalancedROIHeads``; it is left in evaluation mode.
        mapper: detectron2's test mapper, dataset dict -> the model's input.
        records: dataset dicts with ``annotations``; crowd annotations are no objects.

    Raises ``ConfigError`` for a model without such heads or without a proposal generator.
    """
    if not hasattr(getattr(model, "roi_heads", None), "box_candidates") or model.proposal_generator is None:
        raise ConfigError(
            f"iou_scores: {type(model).__name__} has no candidates to rank; it needs a proposal generator and "
            "MODEL.ROI_HEADS.NAME BalancedROIHeads, which have the same weights as detectron2's heads"
        )
    model.eval()
    predictor = model.roi_heads.branches[0].predictor(0)
    recall, ious, true = NmsRecall(predictor.test_nms_thresh, predictor.test_topk_per_image), {}, []
    for record in records:
        image = mapper(record)
        (found,) = find(model, [image])
        gt_boxes, gt_classes = objects_of(record, image["image"].shape[1:], found.boxes.device)
        recall.add(found, gt_boxes, gt_classes)
        true.append(_best_iou(found.refined, gt_boxes))
        for name, image_ious in found.ious.items():
            ious.setdefault(name, []).append(image_ious)
    return Scores(recall, {name: _numpy(each) for name, each in ious.items()}, _numpy(true))


def _numpy(tensors):
    return torch.cat(tensors).cpu().numpy() if tensors else np.zeros(0)


def _best_iou(boxes, gt_boxes):
    if not len(gt_boxes):
        return boxes.new_zeros(len(boxes))
    return pairwise_iou(Boxes(boxes), Boxes(gt_boxes)).amax(dim=1)


def mean_and_sd(values):
    """Merge the checkpoints' results, which are nested alike: every number becomes ``{"mean": .., "sd": ..}``.

    A number that is NaN or ``None`` in any checkpoint gives ``None``. So does the deviation of a single checkpoint.
    """
    first = values[0]
    if isinstance(first, dict):
        return {key: mean_and_sd([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [mean_and_sd(list(each)) for each in zip(*values)]
    if any(value is None or value != value for value in values):
        return {"mean": None, "sd": None}
    return dict(zip(("mean", "sd"), summary.mean_and_sd(values)))
