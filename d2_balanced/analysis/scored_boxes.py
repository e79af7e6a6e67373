"""What a two-stage detector finds in an image before NMS, and what NMS could rank it by.

Shape shorthand: C: candidates of an image, pairs of a refined box and a class whose score exceeds the threshold; R:
refined boxes of an image with at least one such class; Ri: all refined boxes of image i; K: classes; G: objects.
"""

from __future__ import annotations

from typing import Dict, NamedTuple

import torch
from detectron2.structures import Boxes, BoxMode
from torch import Tensor

__all__ = ["Found", "find", "objects_of"]

_EFO = {"without EFO": False, "with EFO": True}


class Found(NamedTuple):
    """One image before NMS, in pixels of the network's input."""

    boxes: Tensor
    """(C, 4), clipped to the image."""
    classes: Tensor
    """(C,)"""
    keys: Dict[str, Tensor]
    """What NMS can rank by, (C,) each; the class score, with an IoU predictor the IoU and their product, and with a box
    coder that tells how sure it is the product with that."""
    refined: Tensor
    """(R, 4), clipped; of class-specific regressors none."""
    ious: Dict[str, Tensor]
    """Predicted IoU (R,) of the refined boxes, with EFO and without; empty without a predictor."""


@torch.no_grad()
def find(model, inputs):
    """A detector's candidates: one :class:`Found` an image.

    Args:
        model: a two-stage detector with ``BalancedROIHeads``, in evaluation mode.
        inputs: list of dicts, as for inference.
    """
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    found = model.roi_heads.box_candidates(features, proposals)
    passed = [_passed(*each, found.predictor.test_score_thresh) for each in zip(found.boxes, found.scores)]
    rows = [image.any(dim=1) for image in passed]
    branch = model.roi_heads.iou_branch
    ious = {name: branch.predicted_ious(found, efo, rows) for name, efo in _EFO.items()}
    ious = {name: per_image for name, per_image in ious.items() if per_image is not None}
    sure = found.confidences or [None] * len(passed)
    return [
        _found(*each, {name: per_image[i] for name, per_image in ious.items()}, branch.combined_scores)
        for i, each in enumerate(zip(found.boxes, found.scores, found.image_sizes, passed, sure))
    ]


def _passed(boxes, scores, score_thresh):
    """(Ri, K) bool: the pairs of box and class that detectron2 hands to NMS."""
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    return (scores[:, :-1] > score_thresh) & finite[:, None]


def _found(boxes, scores, image_size, passed, confidences, ious, combine):
    rows, classes = passed.nonzero(as_tuple=True)
    boxes = Boxes(boxes.reshape(-1, 4))
    boxes.clip(image_size)
    boxes = boxes.tensor.view(len(scores), -1, 4)
    agnostic = boxes.shape[1] == 1
    class_scores = scores[:, :-1][passed]
    keys = {"class score": class_scores}
    if confidences is not None:
        keys["class score x confidence of the sides"] = class_scores * confidences.expand_as(passed)[passed]
    for name, image_ious in ious.items():
        keys[f"IoU, {name}"] = image_ious[rows]
        keys[f"class score x IoU, {name}"] = combine(class_scores, image_ious[rows])
    chosen = passed.any(dim=1)
    return Found(
        boxes[rows, 0 if agnostic else classes],
        classes,
        keys,
        boxes[chosen, 0] if agnostic else boxes.new_zeros(0, 4),
        {name: image_ious[chosen] for name, image_ious in ious.items()},
    )


def objects_of(record, image_size, device="cpu"):
    """A record's objects: boxes (G, 4) in pixels of the image when it has the size (height, width), classes (G,)."""
    objects = [each for each in record["annotations"] if not each.get("iscrowd", 0)]
    boxes = [BoxMode.convert(list(each["bbox"]), each["bbox_mode"], BoxMode.XYXY_ABS) for each in objects]
    scale = torch.tensor([image_size[1] / record["width"], image_size[0] / record["height"]]).repeat(2)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale
    return boxes.to(device), torch.tensor([each["category_id"] for each in objects], dtype=torch.long, device=device)
