"""Streams of labeled proposals for the tests of Dynamic R-CNN, and one training iteration on them."""

import d2_balanced  # noqa: F401  (first, where this runs as a program: it makes detectron2 importable)
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from d2_balanced.modeling.box_losses import DynamicSmoothL1
from d2_balanced.modeling.matcher import DynamicMatcher
from roi_heads_tools import view_of

NUM_CLASSES = 1
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def components(k_iou=75, k_error=10, period=100, **options):
    matcher = DynamicMatcher([0.4], [0, 1], k_iou=k_iou, period=period, **options)
    loss = DynamicSmoothL1(k_error, period, bbox_reg_weights=WEIGHTS, num_classes=NUM_CLASSES, **options)
    return matcher, loss


def labeled_image(rows, matcher):
    """``Instances`` of labeled proposals with the given IoUs and normalised center errors; one class."""
    if rows is None:
        rows = np.zeros((3, 4), np.float32)
        return Instances((10, 10), **fields(rows, matcher.threshold.new_zeros(3, dtype=torch.int8)))
    _, labels = matcher(torch.from_numpy(rows[None, :, 0]))
    image = Instances((10, 10), **fields(rows, labels))
    # A proposal around the origin, and a GT "box" that is its own center: exact errors.
    image.gt_boxes = Boxes(torch.from_numpy(rows[:, [1, 2, 1, 2]]))
    return image


def fields(rows, labels):
    num = len(rows)
    return {
        "proposal_boxes": Boxes(torch.tensor([[-5.0, -5.0, 5.0, 5.0]]).repeat(num, 1)),
        "gt_classes": torch.where(labels == 1, 0, NUM_CLASSES),
        "matched_ious": torch.from_numpy(rows[:, 0].copy()),
        "is_gt": torch.from_numpy(rows[:, 3] == 1),
    }


def view_of_batch(batch, matcher):
    """What the components are shown of these rows; all positives are sampled."""
    labeled = [labeled_image(rows, matcher) for rows in batch]
    return view_of(labeled, [image[image.gt_classes < NUM_CLASSES] for image in labeled])


def step(matcher, loss, batch, iteration):
    """One iteration; returns (threshold, beta) in force during it, and what was logged after it."""
    in_force = (float(matcher.threshold), float(loss.beta))
    view = view_of_batch(batch, matcher)
    for component in (matcher, loss):
        component.observe(view)
    return in_force, {k: float(v) for c in (matcher, loss) for k, v in c.end_iteration(iteration).items()}


def scalar_batches(batches, count_appended_gt=True):
    """The same batches for the scalar reference: rows (iou, error, is_gt)."""

    def rows(image):
        errors = np.abs(image[:, 1:3]).mean(axis=1, dtype=np.float32)
        keep = (image[:, 3] == 0) | count_appended_gt
        return list(zip(image[keep, 0].tolist(), errors[keep].tolist(), image[keep, 3].tolist()))

    return [[None if image is None else rows(image) for image in batch] for batch in batches]


def random_stream(seed, length, images=2, most=30, without_gt=0.15, zeros=0.3):
    """Batches of few rows, with GT-less images, appended GT boxes and equal IoUs."""
    rng = np.random.default_rng(seed)

    def image():
        if rng.random() < without_gt:
            return None
        num = rng.integers(0, most)
        is_gt = rng.random(num) < zeros
        iou = np.where(is_gt, 1.0, rng.integers(0, 17, num) / 16)  # exact in float32, means too
        offsets = np.where(is_gt[:, None], 0.0, rng.normal(size=(num, 2)))
        return np.column_stack([iou, offsets, is_gt]).astype(np.float32)

    return [[image() for _ in range(images)] for _ in range(length)]


def assert_same_state(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for key in ours:
        assert torch.equal(ours[key].nan_to_num(-7), theirs[key].nan_to_num(-7)), key
