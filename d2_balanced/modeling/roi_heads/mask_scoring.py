"""The mask IoU head's targets, loss and scores (Mask Scoring R-CNN; R3-CNN sec. 4.3).

Shape shorthand: F, Fi: foreground RoIs, of image i; R: detections; S: side of a mask; K: foreground classes.
"""

import torch
from detectron2.structures import BitMasks
from detectron2.utils.events import get_event_storage

__all__ = ["area_ratio", "mask_iou_losses", "mask_iou_targets", "score_masks", "masks_of_classes"]

_EPSILON = 1e-7


def area_ratio(gt_masks, boxes, crops):
    """Which part of an object's mask lies inside its box.

    Args:
        gt_masks: ``BitMasks`` or ``PolygonMasks`` of F objects.
        boxes: tensor (F, 4), in pixels.
        crops: their masks in the boxes, bool (F, S, S); what polygons cover inside a box is read from it.

    Returns a tensor (F,) in [0, 1]; 0 for an empty mask, or a box outside it. Bitmaps are counted exactly, in the box
    with its corners truncated to whole pixels, one pixel at least; polygons have their area by the shoelace formula.
    """
    if isinstance(gt_masks, BitMasks):
        full = gt_masks.tensor.flatten(1).sum(dim=1)
        inside = _pixels_in_boxes(gt_masks.tensor, boxes)
    else:
        full = gt_masks.area().to(boxes)
        sizes = boxes[:, 2:] - boxes[:, :2]
        inside = crops.float().mean(dim=(1, 2)) * sizes[:, 0] * sizes[:, 1]
    return (inside / (full + _EPSILON)).clamp(max=1.0)


def _pixels_in_boxes(bitmaps, boxes):
    """Set pixels (F,) of bitmaps (F, H, W) in one box each."""
    start = boxes[:, :2].to(torch.int64)
    stop = torch.maximum(boxes[:, 2:].to(torch.int64), start + 1)
    height, width = bitmaps.shape[1:]
    columns = _inside(width, start[:, :1], stop[:, :1])
    rows = _inside(height, start[:, 1:], stop[:, 1:])
    return (bitmaps & rows[:, :, None] & columns[:, None, :]).flatten(1).sum(dim=1)


def _inside(length, start, stop):
    positions = torch.arange(length, device=start.device)[None]
    return (positions >= start) & (positions < stop)


def mask_iou_targets(probabilities, crops, ratios):
    """The IoU of predicted masks with whole objects, of which only a part is in the box.

    Args:
        probabilities: predicted masks (F, S, S); a pixel above 0.5 belongs to the mask, as when masks are pasted.
        crops: ground-truth masks in the boxes, bool (F, S, S).
        ratios: see :func:`area_ratio`, (F,).

    Returns a tensor (F,); 0 where both masks are empty. What is outside the box counts as missed: the object's whole
    area is its area in the box over the ratio.
    """
    predicted, crops = probabilities > 0.5, crops.flatten(1)
    predicted = predicted.flatten(1)
    overlap = (predicted & crops).sum(dim=1).to(ratios)
    whole = crops.sum(dim=1).to(ratios) / (ratios + _EPSILON)
    union = predicted.sum(dim=1).to(ratios) + whole - overlap
    return torch.where(union > 0, overlap / union.clamp(min=_EPSILON), union.new_zeros(()))


def masks_of_classes(logits, classes):
    """The logits (F, 1, S, S) of one class for each of (F, K, S, S); those of class-agnostic heads are for all."""
    if logits.shape[1] == 1:
        return logits
    return logits[torch.arange(len(logits), device=logits.device), classes][:, None]


def mask_iou_losses(head, features, logits, foreground):
    """``loss_mask_iou``: mean squared error over the RoIs whose target is above 0, times the head's ``loss_weight``.

    Args:
        head: see ``MASK_IOU_HEAD_REGISTRY``.
        features: pooled mask features (F, C, h, w).
        logits: the mask head's (F, K or 1, S, S).
        foreground: list of ``Instances`` with ``proposal_boxes``, ``gt_classes`` and ``gt_masks``; the last two may be
            missing from images without objects.

    Gradients reach the mask head through the mask that the IoU head sees, not through the target. 0, connected to the
    graph, without foreground.
    """
    images = [image for image in foreground if len(image) > 0]
    classes = torch.cat([image.gt_classes for image in images]) if images else logits.new_zeros(0, dtype=torch.int64)
    probabilities = masks_of_classes(logits, classes).sigmoid()
    ious = head(features, probabilities).gather(1, classes[:, None])[:, 0]
    parts = probabilities.detach()[:, 0].split([len(image) for image in images]) if images else []
    targets = [_image_targets(image, masks) for image, masks in zip(images, parts)]
    targets = torch.cat(targets) if targets else ious.new_zeros(0)
    counted = (targets > 0).to(ious)
    get_event_storage().put_scalar("mask_rcnn/mean_iou_target", targets.sum() / max(len(targets), 1))
    loss = (counted * (ious - targets) ** 2).sum() / counted.sum().clamp(min=1.0)
    return {"loss_mask_iou": loss * head.loss_weight}


@torch.no_grad()
def _image_targets(image, probabilities):
    boxes = image.proposal_boxes.tensor
    crops = image.gt_masks.crop_and_resize(boxes, probabilities.shape[-1]).to(boxes.device)
    return mask_iou_targets(probabilities, crops, area_ratio(image.gt_masks, boxes, crops))


def score_masks(head, features, instances, masks=None):
    """Set ``mask_scores`` (R,), box score times predicted mask IoU, which the evaluation ranks masks by.

    Args:
        head: see ``MASK_IOU_HEAD_REGISTRY``.
        features: pooled mask features (R, C, h, w) of all images.
        instances: list of ``Instances`` with ``scores``, ``pred_classes`` and ``pred_masks`` (R, 1, S, S), changed in
            place. The boxes keep their ``scores``.
        masks: the masks (R, 1, S, S) that the head is asked about; ``None``: ``pred_masks``.
    """
    classes = torch.cat([image.pred_classes for image in instances])
    masks = torch.cat([image.pred_masks for image in instances]) if masks is None else masks
    ious = head(features, masks).gather(1, classes[:, None])[:, 0]
    for image, image_ious in zip(instances, ious.split([len(image) for image in instances])):
        image.mask_scores = image.scores * image_ious
