"""From one stage to the next: predicted boxes become the proposals of the following stage.

Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes.
"""

import torch
from detectron2.structures import Boxes, Instances

from ..image_rows import repeat, selected_rows, to_device

__all__ = ["one_box_per_proposal", "refined_proposals"]


def one_box_per_proposal(boxes, logits, proposals):
    """The box that a proposal is refined to.

    Args:
        boxes: predicted boxes, a tensor (Ri, 4) an image for class-agnostic heads, (Ri, 4K) for class-specific ones.
        logits: class logits (R, K+1), background last.
        proposals: list of ``Instances``; in training with ``gt_classes``.

    Returns a list of tensors (Ri, 4). A class-specific head refines a positive with its ground-truth class's box, and
    everything else (all at inference) with that of the foreground class it finds most likely.
    """
    if boxes[0].shape[1] == 4:
        return boxes
    boxes = torch.cat(list(boxes))
    num_classes = boxes.shape[1] // 4
    classes = logits[:, :num_classes].argmax(dim=1)
    if all(p.has("gt_classes") for p in proposals):
        gt_classes = torch.cat([p.gt_classes for p in proposals])
        classes = torch.where((gt_classes >= 0) & (gt_classes < num_classes), gt_classes, classes)
    rows = torch.arange(len(boxes), device=boxes.device)
    return boxes.view(-1, num_classes, 4)[rows, classes].split([len(p) for p in proposals])


def refined_proposals(boxes, samples, training, keep_appended_gt):
    """The proposals of the next stage: boxes clipped to their images, without gradient.

    Args:
        boxes: list of tensors (Ri, 4), in pixels.
        samples: list of ``Instances`` that they were predicted from; ``is_gt`` is needed to drop appended boxes.
        training: drop boxes that became empty. At inference the rows stay aligned, so that scores can be merged, and
            what is not finite is set to 0: a diverged detector detects nothing, as with one stage.
        keep_appended_gt: keep the rows that were appended ground truth (training only).

    Raises ``FloatingPointError`` for boxes that are not finite in ``training``.
    """
    boxes, sizes = torch.cat(list(boxes)).detach(), [len(image) for image in samples]
    if training:
        drop = None if keep_appended_gt else torch.cat([image.is_gt for image in samples])
        boxes, sizes = _kept(boxes, _clipped(boxes, samples, sizes), drop, sizes)
    else:
        boxes = _clipped(torch.nan_to_num(boxes), samples, sizes)
    parts = zip(samples, boxes.split(sizes))
    return [Instances(image.image_size, proposal_boxes=Boxes(image_boxes)) for image, image_boxes in parts]


def _clipped(boxes, samples, sizes):
    if torch.jit.is_tracing():  # there the images' sizes are tensors
        images = [Boxes(part) for part in boxes.split(sizes)]
        for image_boxes, image in zip(images, samples):
            image_boxes.clip(image.image_size)
        return Boxes.cat(images).tensor
    limits = [(w, h, w, h) for h, w in (image.image_size for image in samples)]
    return boxes.clamp(min=0).minimum(repeat(to_device(limits, boxes, boxes.dtype), sizes))


def _kept(boxes, clipped, drop, sizes):
    """Clipped boxes with an area, without those to drop (a mask (R,) or ``None``), and how many every image has."""
    keep = Boxes(clipped).nonempty()
    keep = keep if drop is None else keep & ~drop
    mask = torch.cat([keep, boxes.isfinite().all()[None]])  # the last one: whether nothing is amiss
    rows, counts = selected_rows(mask, [*sizes, 1])
    if not counts[-1]:
        raise FloatingPointError("Predicted boxes contain Inf/NaN. Training has diverged.")
    return clipped[rows[: sum(counts[:-1])]], counts[:-1]
