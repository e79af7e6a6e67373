"""Matching of a whole batch: what every matcher says of every image alone, and detectron2's IoUs."""

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes
from detectron2.structures import pairwise_iou as detectron2_iou

from d2_balanced.modeling.matcher import DynamicMatcher, FixedMatcher, fixed_matcher
from d2_balanced.modeling.matching import box_table, match_images, pairwise_iou


class Halved(FixedMatcher):
    """A matcher with rules of its own: no thresholds can stand for it."""

    def __call__(self, ious):
        return super().__call__(ious / 2)


class NoLowQuality(Matcher):
    def set_low_quality_matches_(self, match_labels, match_quality_matrix):
        pass


def at(threshold):
    matcher = DynamicMatcher([0.3], [0, 1], allow_low_quality_matches=True)
    matcher.threshold.fill_(threshold)
    return matcher


MATCHERS = {
    "fixed": FixedMatcher([0.5], [0, 1]),
    "an ignored band": FixedMatcher([0.3, 0.5], [0, -1, 1]),
    "anchors": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
    "nothing is background": FixedMatcher([0.5], [-1, 1]),
    "dynamic": at(0.4),
    "own rules": Halved([0.2], [0, 1]),
    "own low quality": NoLowQuality([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
    "a function": lambda ious: FixedMatcher([0.5], [0, 1])(ious),
}
BATCHES = [((3, 40), (5, 60)), ((0, 30), (4, 1)), ((2, 0), (1, 7)), ((0, 5), (0, 9)), ((6, 50),)]


def boxes(num, generator):
    """Boxes on a grid: equal IoUs, touching boxes and boxes without area are frequent."""
    corner = torch.randint(0, 8, (num, 2), generator=generator)
    return Boxes(torch.cat([corner, corner + torch.randint(0, 6, (num, 2), generator=generator)], dim=1).float())


def test_which_matchers_go_by_thresholds():
    fixed = [name for name, matcher in MATCHERS.items() if fixed_matcher(matcher) is not None]
    assert fixed == ["fixed", "an ignored band", "anchors", "nothing is background", "dynamic"]


@pytest.mark.parametrize("matcher", MATCHERS.values(), ids=MATCHERS)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_a_batch_is_matched_as_its_images(matcher, batch):
    generator = torch.Generator().manual_seed(0)
    gt, proposals = ([boxes(sizes[k], generator) for sizes in batch] for k in (0, 1))
    idxs, ious, labels = (part.split([n for _, n in batch]) for part in match_images(matcher, gt, proposals))
    for n in range(len(batch)):
        matrix = detectron2_iou(gt[n], proposals[n])
        expected_idxs, expected_labels = matcher(matrix)
        expected_ious = matrix.max(dim=0).values if len(matrix) else torch.zeros(len(proposals[n]))
        assert torch.equal(idxs[n], expected_idxs) and idxs[n].dtype == torch.int64
        assert torch.equal(labels[n], expected_labels) and labels[n].dtype == torch.int8
        assert torch.equal(ious[n], expected_ious)


def test_images_may_share_their_anchors():
    generator = torch.Generator().manual_seed(1)
    anchors, gt = boxes(50, generator), [boxes(3, generator), boxes(0, generator), boxes(4, generator)]
    shared = match_images(MATCHERS["anchors"], gt, [anchors] * 3)
    assert all(map(torch.equal, shared, match_images(MATCHERS["anchors"], gt, [anchors[:] for _ in gt])))


@pytest.mark.parametrize("num, others", [(7, 1000), (0, 9), (9, 0)])
def test_ious_are_detectron2s_to_the_bit(num, others):
    generator = torch.Generator().manual_seed(2)
    for scale in (1.0, 1e-3, 317.7):
        first, second = (Boxes(boxes(n, generator).tensor * scale + scale / 3) for n in (num, others))
        assert torch.equal(pairwise_iou(box_table([first])[0], box_table([second])[0]), detectron2_iou(first, second))
