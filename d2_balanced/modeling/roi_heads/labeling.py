"""Seats 2 and 3 of the training step: label every proposal by its best ground-truth box, then draw minibatches.

A *labeled* proposal has, beside what the proposal generator gave it, ``matched_idxs`` (index of its best ground-truth
box), ``matched_ious`` (their IoU), ``gt_classes`` (class, ``num_classes`` for background, -1 for ignored), ``is_gt``
(it is an appended ground-truth box, or a generated one) and, in images with objects, ``gt_boxes``. A *sample* has all
``gt_*`` fields of its ground truth, as detectron2's heads expect them.

Shape shorthand: N: proposals of an image; M: its ground-truth boxes.
"""

import torch
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage

from d2_balanced.modeling.ignore_regions import ignore_regions_of, in_ignore_region
from d2_balanced.modeling.image_rows import first_rows, repeat, selected_by_image, to_device
from d2_balanced.modeling.log_counts import log_counts
from d2_balanced.modeling.matching import match_images

from .joined import join_images, split_images, take_rows

__all__ = [
    "append_gt",
    "foreground_of",
    "join_generated",
    "keep_all_labeled",
    "label_proposals",
    "mark_no_gt",
    "sample_proposals",
    "take_drawn",
]


def append_gt(proposals, targets):
    """The proposals with the ground-truth boxes appended, and ``is_gt`` set; the input is not changed."""
    counts, image_sizes = [len(t) for t in targets], [t.image_size for t in targets]
    objects = split_images(_objects_as_proposals(proposals, targets), counts, image_sizes)
    parts = [part for pair in zip(proposals, objects) for part in pair]
    sizes = [len(part) for part in parts]
    joined = join_images(parts)
    joined.is_gt = repeat(torch.arange(len(parts), device=joined.proposal_boxes.device) % 2 == 1, sizes)
    return split_images(joined, [p + o for p, o in zip(sizes[::2], sizes[1::2])], image_sizes)


def _objects_as_proposals(proposals, targets):
    """All objects of the batch as proposals, with the objectness that detectron2 gives them, if proposals have any."""
    boxes, none = Boxes.cat([t.gt_boxes for t in targets]), proposals[0][:0]
    if not none.has("objectness_logits"):  # refined proposals
        return Instances(none.image_size, proposal_boxes=boxes)
    return add_ground_truth_to_proposals([boxes], [none])[0]


def mark_no_gt(proposals):
    """The proposals as they are, with ``is_gt`` false everywhere (copies; the input is not changed)."""
    marked, sizes = [p[:] for p in proposals], [len(p) for p in proposals]
    is_gt = torch.zeros(sum(sizes), dtype=torch.bool, device=proposals[0].proposal_boxes.device)
    for p, of_image in zip(marked, is_gt.split(sizes)):
        p.is_gt = of_image
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
    sizes = [len(p) for p in proposals]
    matches = match_images(matcher, [t.gt_boxes for t in targets], [p.proposal_boxes for p in proposals])
    classes, boxes = _of_matched_objects(matches.idxs, sizes, targets, num_classes)
    classes.masked_fill_(matches.labels == 0, num_classes).masked_fill_(matches.labels == -1, -1)
    parts = (matches.idxs.split(sizes), matches.ious.split(sizes), classes.split(sizes), boxes.split(sizes))
    for p, image_targets, idxs, ious, gt_classes, gt_boxes in zip(proposals, targets, *parts):
        p.matched_idxs, p.matched_ious, p.gt_classes = idxs, ious, gt_classes
        if len(image_targets) > 0:
            p.gt_boxes = Boxes(gt_boxes)
        else:
            gt_classes.fill_(num_classes)
        _ignore_in_regions(p, image_targets, num_classes)
    return proposals


def _of_matched_objects(matched_idxs, sizes, targets, num_classes):
    """Class (N,) and box (N, 4) of every proposal's object, for all images; without objects they mean nothing."""
    first = to_device(first_rows([len(t) for t in targets]), matched_idxs)
    rows = matched_idxs + repeat(first, sizes)
    # One more row, for what matches nothing in images after the last object.
    classes = torch.cat([*(t.gt_classes for t in targets), matched_idxs.new_full((1,), num_classes)])
    boxes = torch.cat([t.gt_boxes.tensor for t in targets])
    return classes[rows], torch.cat([boxes, boxes.new_zeros(1, 4)])[rows]


def _ignore_in_regions(proposals, targets, num_classes):
    """Label -1, in place, the background in an ignore region."""
    regions = ignore_regions_of(targets)
    if regions is not None:
        is_background = proposals.gt_classes == num_classes
        proposals.gt_classes.masked_fill_(is_background & in_ignore_region(proposals.proposal_boxes, regions), -1)


@torch.no_grad()
def join_generated(labeled, generated, targets, matcher, num_classes):
    """The labeled proposals of every image, followed by generated boxes that are labeled in the same way.

    These are no proposals, so ``is_gt`` is set for them as it is for appended ground truth; ``is_generated`` tells them
    apart. ``generated``: a list of ``Boxes``; the others are as in :func:`label_proposals`.
    """
    extras = []
    for image, boxes in zip(labeled, generated):
        extra = Instances(image.image_size, proposal_boxes=boxes, is_gt=boxes.tensor.new_ones(len(boxes)).bool())
        if image.has("objectness_logits"):
            extra.objectness_logits = image.objectness_logits.new_zeros(len(boxes))
        extras.append(extra)
    extras = label_proposals(extras, targets, matcher, num_classes)
    for images, is_generated in ((labeled, False), (extras, True)):
        for image in images:
            image.is_generated = torch.full_like(image.is_gt, is_generated)
    return [Instances.cat(pair) for pair in zip(labeled, extras)]


@torch.no_grad()
def sample_proposals(labeled, targets, branch, num_classes):
    """Draw a branch's minibatch in every image, and log how many positives and negatives it has.

    Returns a list of ``Instances``: positives first, then negatives, with all ``gt_*`` fields of their ground truth
    where the image has any.
    """
    return take_drawn(labeled, targets, branch.sample(labeled, num_classes))


@torch.no_grad()
def take_drawn(labeled, targets, drawn):
    """What is drawn of every image, a pair of row indices (positives, negatives) each; see :func:`sample_proposals`."""
    num_fg, num_bg = (sum(len(rows) for rows in kind) for kind in zip(*drawn))
    _log_means(get_event_storage(), num_fg / len(labeled), num_bg / len(labeled))
    return _with_targets(take_rows(labeled, [torch.cat(pair) for pair in drawn]), targets)


@torch.no_grad()
def keep_all_labeled(labeled, targets, may_ignore, num_classes):
    """Every labeled proposal, in its order and without the ignored ones, as the samples of a later cascade stage.

    ``may_ignore``: whether the matcher can give the label -1 at all (dropping these rows costs a host-device sync).
    """
    classes = torch.cat([image.gt_classes for image in labeled])
    if may_ignore or any(ignore_regions_of(targets_image) is not None for targets_image in targets):
        labeled = take_rows(labeled, selected_by_image(classes >= 0, [len(image) for image in labeled]))
    num_all = sum(len(image) for image in labeled)

    def write(storage, num_fg):
        _log_means(storage, num_fg / len(labeled), (num_all - num_fg) / len(labeled))

    log_counts(((classes >= 0) & (classes < num_classes)).sum()[None], write)
    return _with_targets(labeled, targets)


@torch.no_grad()
def foreground_of(samples, num_classes):
    """The samples that are neither background nor ignored: detectron2's ``select_foreground_proposals``."""
    classes = torch.cat([image.gt_classes for image in samples])
    is_foreground = (classes >= 0) & (classes < num_classes)
    return take_rows(samples, selected_by_image(is_foreground, [len(image) for image in samples]))


def _with_targets(samples, targets):
    for image, image_targets in zip(samples, targets):
        if len(image_targets) == 0:  # detectron2's heads know background-only images by the missing fields
            continue
        for name, value in image_targets.get_fields().items():
            if name.startswith("gt_") and not image.has(name):
                image.set(name, value[image.matched_idxs])
    return samples


def _log_means(storage, num_fg, num_bg):
    storage.put_scalar("roi_head/num_fg_samples", num_fg)
    storage.put_scalar("roi_head/num_bg_samples", num_bg)
