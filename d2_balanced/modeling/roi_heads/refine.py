"""From one stage to the next: predicted boxes become the proposals of the following stage.

Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes.
"""

import torch
from detectron2.structures import Boxes, Instances

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
    counts = [len(p) for p in proposals]
    return [
        image_boxes if image_boxes.shape[1] == 4 else _box_of_class(image_boxes, image_logits, p)
        for image_boxes, image_logits, p in zip(boxes, logits.split(counts), proposals)
    ]


def _box_of_class(boxes, logits, proposals):
    num_classes = boxes.shape[1] // 4
    classes = logits[:, :num_classes].argmax(dim=1)
    if proposals.has("gt_classes"):
        gt_classes = proposals.gt_classes
        classes = torch.where((gt_classes >= 0) & (gt_classes < num_classes), gt_classes, classes)
    rows = torch.arange(len(boxes), device=boxes.device)
    return boxes.view(-1, num_classes, 4)[rows, classes]


def refined_proposals(boxes, samples, training, keep_appended_gt):
    """The proposals of the next stage: boxes clipped to the image, without gradient.

    Args:
        boxes: list of tensors (Ri, 4), in pixels.
        samples: list of ``Instances`` that they were predicted from; ``is_gt`` is needed to drop appended boxes.
        training: drop boxes that became empty. At inference the rows stay aligned, so that scores can be merged, and
            what is not finite is set to 0: a diverged detector detects nothing, as with one stage.
        keep_appended_gt: keep the rows that were appended ground truth (training only).
    """
    proposals = []
    for image_boxes, image_samples in zip(boxes, samples):
        refined = Boxes(image_boxes.detach() if training else torch.nan_to_num(image_boxes.detach()))
        refined.clip(image_samples.image_size)
        if training:
            keep = refined.nonempty()
            if not keep_appended_gt:
                keep = keep & ~image_samples.is_gt
            refined = refined[keep]
        proposals.append(Instances(image_samples.image_size, proposal_boxes=refined))
    return proposals
