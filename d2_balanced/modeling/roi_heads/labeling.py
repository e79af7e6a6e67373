"""Seats 2 and 3 of the training step: label every proposal by its best ground-truth box, then draw minibatches.

A *labeled* proposal has, beside what the proposal generator gave it, ``matched_idxs`` (index of its best ground-truth
box), ``matched_ious`` (their IoU), ``gt_classes`` (class, ``num_classes`` for background, -1 for ignored), ``is_gt``
(it is an appended ground-truth box, or a generated one) and, in images with objects, ``gt_boxes``. A *sample* has all
``gt_*`` fields of its ground truth, as detectron2's heads expect them.

Shape shorthand: N: proposals of an image; M: its ground-truth boxes.
"""

import torch
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.structures import Instances, pairwise_iou
from detectron2.utils.events import get_event_storage

from d2_balanced.modeling.ignore_regions import ignore_regions_of, in_ignore_region

__all__ = [
    "append_gt",
    "join_generated",
    "keep_all_labeled",
    "label_proposals",
    "mark_no_gt",
    "sample_proposals",
]


def append_gt(proposals, targets):
    """The proposals with the ground-truth boxes appended, and ``is_gt`` set; the input is not changed."""
    if all(p.has("objectness_logits") for p in proposals):
        appended = add_ground_truth_to_proposals(targets, proposals)
    else:  # refined proposals, which have no objectness that detectron2's function could extend
        objects = [Instances(t.image_size, proposal_boxes=t.gt_boxes) for t in targets]
        appended = [Instances.cat(pair) for pair in zip(proposals, objects)]
    for before, after in zip(proposals, appended):
        after.is_gt = torch.arange(len(after), device=after.proposal_boxes.device) >= len(before)
    return appended


def mark_no_gt(proposals):
    """The proposals as they are, with ``is_gt`` false everywhere (copies; the input is not changed)."""
    marked = [p[:] for p in proposals]
    for p in marked:
        p.is_gt = torch.zeros(len(p), dtype=torch.bool, device=p.proposal_boxes.device)
    return marked


@torch.no_grad()
def label_proposals(proposals, targets, matcher, num_classes):
    """Label every proposal of every image by its best ground-truth box.

    Args:
        proposals: list of ``Instances`` with ``proposal_boxes`` (N) and ``is_gt`` (N,).
        targets: list of ``Instances`` with ``gt_boxes`` (M) and ``gt_classes`` (M,).
        matcher: proposal matcher, see ``PROPOSAL_MATCHER_REGISTRY``.
        num_classes: number of foreground classes; also the label of the background.

    Returns the labeled proposals (module docstring). An image without ground truth is all background, with IoU 0.
    Background in one of the targets' ignore regions (``ignore_regions.py``) is labeled -1.
    """
    return [_label_image(p, t, matcher, num_classes) for p, t in zip(proposals, targets)]


@torch.no_grad()
def join_generated(labeled, generated, targets, matcher, num_classes):
    """The labeled proposals of every image, followed by generated boxes that are labeled in the same way.

    These are no proposals, so ``is_gt`` is set for them as it is for appended ground truth; ``is_generated`` tells them
    apart. ``generated``: a list of ``Boxes``; the others are as in :func:`label_proposals`.
    """
    joined = []
    for image, boxes, image_targets in zip(labeled, generated, targets):
        extra = Instances(image.image_size, proposal_boxes=boxes, is_gt=boxes.tensor.new_ones(len(boxes)).bool())
        if image.has("objectness_logits"):
            extra.objectness_logits = image.objectness_logits.new_zeros(len(boxes))
        extra = _label_image(extra, image_targets, matcher, num_classes)
        for part, is_generated in ((image, False), (extra, True)):
            part.is_generated = torch.full_like(part.is_gt, is_generated)
        joined.append(Instances.cat([image, extra]))
    return joined


def _label_image(proposals, targets, matcher, num_classes):
    iou = pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)  # (M, N)
    matched_idxs, labels = matcher(iou)
    proposals.matched_idxs = matched_idxs
    if len(targets) == 0:
        proposals.matched_ious = iou.new_zeros(len(proposals))
        background = torch.full_like(matched_idxs, num_classes)
        proposals.gt_classes = _without_regions(background, proposals, targets, num_classes)
        return proposals
    gt_classes = targets.gt_classes[matched_idxs]
    gt_classes[labels == 0] = num_classes
    gt_classes[labels == -1] = -1
    proposals.matched_ious = iou.gather(0, matched_idxs[None])[0]
    proposals.gt_classes = _without_regions(gt_classes, proposals, targets, num_classes)
    proposals.gt_boxes = targets.gt_boxes[matched_idxs]
    return proposals


def _without_regions(gt_classes, proposals, targets, num_classes):
    """The labels, with -1 for the background in an ignore region."""
    regions = ignore_regions_of(targets)
    if regions is None:
        return gt_classes
    ignored = (gt_classes == num_classes) & in_ignore_region(proposals.proposal_boxes, regions)
    return gt_classes.masked_fill(ignored, -1)


@torch.no_grad()
def sample_proposals(labeled, targets, branch, num_classes):
    """Draw a branch's minibatch in every image, and log how many positives and negatives it has.

    Returns a list of ``Instances``: positives first, then negatives, with all ``gt_*`` fields of their ground truth
    where the image has any.
    """
    samples, num_fg, num_bg = [], 0, 0
    for labeled_image, targets_image in zip(labeled, targets):
        positive, negative = branch.sample(labeled_image, num_classes)
        samples.append(_with_targets(labeled_image[torch.cat([positive, negative])], targets_image))
        num_fg, num_bg = num_fg + positive.numel(), num_bg + negative.numel()
    _log_counts(num_fg / len(labeled), num_bg / len(labeled))
    return samples


@torch.no_grad()
def keep_all_labeled(labeled, targets, may_ignore, num_classes):
    """Every labeled proposal, in its order and without the ignored ones, as the samples of a later cascade stage.

    ``may_ignore``: whether the matcher can give the label -1 at all (dropping these rows costs a host-device sync).
    """
    if may_ignore or any(ignore_regions_of(targets_image) is not None for targets_image in targets):
        labeled = [image[image.gt_classes >= 0] for image in labeled]
    samples = [_with_targets(image, targets_image) for image, targets_image in zip(labeled, targets)]
    num_all = sum(len(image) for image in samples)
    num_fg = int(sum((image.gt_classes < num_classes).sum() for image in samples))  # one sync, for the log only
    _log_counts(num_fg / len(samples), (num_all - num_fg) / len(samples))
    return samples


def _with_targets(samples, targets):
    if len(targets) == 0:  # nothing to index; detectron2's heads know background-only images by the missing fields
        return samples
    for name, value in targets.get_fields().items():
        if name.startswith("gt_") and not samples.has(name):
            samples.set(name, value[samples.matched_idxs])
    return samples


def _log_counts(num_fg, num_bg):
    storage = get_event_storage()
    storage.put_scalar("roi_head/num_fg_samples", num_fg)
    storage.put_scalar("roi_head/num_bg_samples", num_bg)
