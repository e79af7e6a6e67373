"""The RPN's proposals of all images at once are detectron2's, to the bit: on either side of its switch between two ways
of NMS, with ties, boxes that are dropped, and values that are not finite."""

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes

from d2_balanced.modeling.proposal_generator.top_proposals import top_candidates, top_proposals

SIZES = [(96, 128), (64, 100), (96, 80)]
TRANSFORM = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))


def predictions(num_images, anchors_of_levels, seed=0, ties=True, crowded=False):
    """Anchors, logits (with ties or without) and deltas. Some boxes lie outside of the image, or all near 20 places."""
    generator = torch.Generator().manual_seed(seed)
    anchors, logits, deltas = [], [], []
    for num in anchors_of_levels:
        corner = torch.rand(num, 2, generator=generator) * 120 - 10
        size = 4 + 30 * torch.rand(num, 2, generator=generator)
        if crowded:
            corner, size = corner[torch.arange(num) % 20].abs() / 2, 20 + 0 * size
        anchors.append(Boxes(torch.cat([corner, corner + size], dim=1)))
        order = torch.rand(num_images, num, generator=generator)
        logits.append((order * 50).floor() / 10 if ties else order)
        deltas.append((0.05 if crowded else 0.3) * torch.randn(num_images, num, 4, generator=generator))
    return anchors, logits, deltas


def both(anchors, logits, deltas, before=800, after=300, min_size=0.0, training=True):
    num = len(logits[0])
    decoded = [
        TRANSFORM.apply_deltas(d.reshape(-1, 4), a.tensor.repeat(num, 1)).view(num, -1, 4)
        for a, d in zip(anchors, deltas)
    ]
    theirs = find_top_rpn_proposals(decoded, logits, SIZES[:num], 0.7, before, after, min_size, training)
    candidates = top_candidates(anchors, logits, deltas, TRANSFORM, before)
    return theirs, top_proposals(candidates, SIZES[:num], 0.7, after, min_size, training)


def assert_equal(theirs, ours):
    assert len(theirs) == len(ours)
    for their, our in zip(theirs, ours):
        assert their.image_size == our.image_size and list(their.get_fields()) == list(our.get_fields())
        assert torch.equal(their.proposal_boxes.tensor, our.proposal_boxes.tensor)
        assert torch.equal(their.objectness_logits, our.objectness_logits)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("min_size", [0.0, 8.0, 1000.0])
@pytest.mark.parametrize("levels", [(1500, 700, 30), (400, 90), (333,), (900, 0, 300)], ids=str)
@pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
def test_proposals_are_detectron2s(ties, levels, min_size, training):
    theirs, ours = both(*predictions(3, levels, ties=ties), min_size=min_size, training=training)
    assert_equal(theirs, ours)
    assert sum(map(len, ours)) > 100 or min_size == 1000


@pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
@pytest.mark.parametrize("num", [1, 7, 30, 300])
@pytest.mark.parametrize("levels", [(1500, 700, 30), (400, 90)], ids=str)
def test_many_duplicates(levels, num, ties):
    """Far more than twice as many candidates are needed as proposals are found."""
    theirs, ours = both(*predictions(2, levels, ties=ties, crowded=True), after=num)
    assert_equal(theirs, ours)
    assert len(ours[0]) == num or num == 300


def test_some_boxes_are_dropped_and_some_are_duplicates():
    """Guards the test above."""
    anchors, logits, deltas = predictions(3, (1500, 700, 30))
    candidates = top_candidates(anchors, logits, deltas, TRANSFORM, 800)
    assert candidates.level_sizes == [800, 700, 30]
    few = top_proposals(candidates, SIZES, 0.7, 10_000, 8.0, True)
    more = top_proposals(candidates, SIZES, 1.1, 10_000, 8.0, True)  # without NMS
    everything = top_proposals(candidates, SIZES, 1.1, 10_000, -1.0, True)
    assert [len(image) for image in everything] == [1530] * 3
    assert all(len(a) < len(b) < 1530 for a, b in zip(few, more))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["logits", "deltas"])
def test_values_that_are_not_finite(value, where):
    anchors, logits, deltas = predictions(2, (1200, 300))
    (logits if where == "logits" else deltas)[0][1, 5] = value
    logits[0][1, 5] = logits[0][1, 5] if where == "logits" else 100.0  # so that it is among the candidates
    if value == float("-inf"):
        return assert_equal(*both(anchors, logits, deltas, training=False))
    with pytest.raises(FloatingPointError, match="Inf/NaN. Training has diverged"):
        top_proposals(top_candidates(anchors, logits, deltas, TRANSFORM, 800), SIZES[:2], 0.7, 300, 0.0, True)
    assert_equal(*both(anchors, logits, deltas, training=False))
