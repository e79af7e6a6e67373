"""Ignore regions: proposals and anchors inside them are neither sampled nor counted, and nothing else changes."""

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes

import roi_heads_tools as h
from d2_balanced.modeling.ignore_regions import TargetsWithRegions, ignore_regions_of, in_ignore_region
from d2_balanced.modeling.matcher import DynamicMatcher
from d2_balanced.modeling.proposal_generator import BalancedRPN
from d2_balanced.modeling.roi_heads.labeling import label_proposals, mark_no_gt

REGIONS = torch.tensor([[0.0, 0.0, 70.0, 60.0], [90.0, 50.0, 128.0, 96.0]])
EVERYWHERE = torch.tensor([[0.0, 0.0, 128.0, 96.0]])
AGNOSTIC = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
HEADS = {
    "single": {},
    "branches": {"MODEL__BALANCED__BRANCHES": [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]},
    "cascade": {**AGNOSTIC, "MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}},
    "recursive": {**AGNOSTIC, "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages"}},
    "masks in every stage": {
        **AGNOSTIC, "MODEL__MASK_ON": True, "MODEL__ROI_MASK_HEAD__NAME": "FlowMaskHead",
        "MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}, "MODEL__BALANCED__MASKS": {"NAME": "InterleavedMasks"},
    },
}  # fmt: skip


def with_regions(targets, regions):
    return [TargetsWithRegions(t, Boxes(regions.reshape(-1, 4))) for t in targets]


def scalar_in_region(box, regions):
    """Whether more than half of the box's own area is in one region."""
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    for rx1, ry1, rx2, ry2 in regions:
        width, height = min(x2, rx2) - max(x1, rx1), min(y2, ry2) - max(y1, ry1)
        if width > 0 and height > 0 and width * height / area > 0.5:
            return True
    return False


def test_overlap_is_a_share_of_the_box_not_of_the_union():
    region = Boxes(torch.tensor([[0.0, 0.0, 100.0, 100.0]]))
    boxes = Boxes(torch.tensor([[0.0, 0, 2, 2], [99, 0, 101, 2], [98.9, 0, 100.9, 2], [0, 0, 150, 150], [5, 5, 5, 9]]))
    assert in_ignore_region(boxes, region).tolist() == [True, False, True, False, False]
    assert in_ignore_region(boxes[:0], region).shape == (0,)


def test_two_regions_that_share_a_box_do_not_add_up():
    halves = Boxes(torch.tensor([[0.0, 0.0, 4.0, 10.0], [6.0, 0.0, 10.0, 10.0]]))
    assert not in_ignore_region(Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]])), halves).any()


@pytest.mark.parametrize("num_objects", [(4, 7), (0, 5), (0, 0)])
def test_only_background_in_a_region_changes_its_label(num_objects):
    plain = h.targets(num_objects)
    heads = h.build(h.tiny_cfg())
    proposals = h.proposals(plain)
    before, after = (
        label_proposals(mark_no_gt(proposals), targets, heads.matchers[0], 3)
        for targets in (plain, with_regions(plain, REGIONS))
    )
    ignored = 0
    for image, marked in zip(before, after):
        assert torch.equal(image.matched_ious, marked.matched_ious)
        assert torch.equal(image.matched_idxs, marked.matched_idxs)
        for row in range(len(image)):
            inside = scalar_in_region(image.proposal_boxes.tensor[row].tolist(), REGIONS.tolist())
            is_background = int(image.gt_classes[row]) == 3
            assert int(marked.gt_classes[row]) == (-1 if inside and is_background else int(image.gt_classes[row]))
            ignored += inside and is_background
    assert ignored > 5


def equal_steps(first, second):
    (losses, gradients, _, logged, random), (others, other_gradients, _, other_logged, other_random) = first, second
    assert losses.keys() == others.keys() and logged == other_logged and torch.equal(random, other_random)
    assert all(torch.equal(losses[name], others[name]) for name in losses)
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("regions", [torch.zeros(0, 4), torch.tensor([[500.0, 500.0, 600.0, 600.0]])])
def test_regions_that_touch_nothing_change_no_bit(kind, regions):
    heads = h.build(h.tiny_cfg(**HEADS[kind]))
    plain = h.targets((4, 7), masks=heads.mask_on)
    feats, proposals = h.features(2), h.proposals(plain)
    first = h.train_step(heads, feats, proposals, plain)
    equal_steps(first, h.train_step(heads, feats, proposals, with_regions(plain, regions)))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("num_objects", [(4, 7), (0, 5), (0, 0)])
def test_everything_ignored_but_objects(kind, num_objects):
    """No background is left: minibatches hold positives only, in every stage, and are empty without objects."""
    heads = h.build(h.tiny_cfg(**HEADS[kind]))
    targets = with_regions(h.targets(num_objects, masks=heads.mask_on), EVERYWHERE)
    (losses, gradients, *_), views = h.watched_step(heads, h.features(2), h.proposals(targets), targets)
    kept = [samples for view in views for samples in view.samples]
    assert len(kept) == heads.stages.num_train * len(heads.branches)
    assert all(((image.gt_classes >= 0) & (image.gt_classes < 3)).all() for samples in kept for image in samples)
    assert [len(image) > 0 for image in kept[0]] == [num > 0 for num in num_objects]
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_statistics_do_not_count_what_is_ignored():
    """The dynamic threshold's statistic is the one of the proposals outside of the regions."""
    heads = h.build(h.tiny_cfg())
    targets = h.targets((4, 7))
    proposals = h.proposals(targets)
    statistics = []
    for regions, drop in ((None, True), (REGIONS, False)):
        matcher = DynamicMatcher([0.4], [0, 1], k_iou=40, period=1)
        labeled = label_proposals(mark_no_gt(proposals), targets, matcher, heads.num_classes)
        if drop:
            keep = [
                [int(c) < 3 or not scalar_in_region(b, REGIONS.tolist())
                 for b, c in zip(image.proposal_boxes.tensor.tolist(), image.gt_classes)] for image in labeled
            ]  # fmt: skip
            labeled = [image[torch.tensor(rows)] for image, rows in zip(labeled, keep)]
        else:
            labeled = label_proposals(mark_no_gt(proposals), with_regions(targets, regions), matcher, heads.num_classes)
        matcher.observe(h.view_of(labeled))
        statistics.append(float(matcher.end_iteration(0)["dynamic_matcher/iou_statistic"]))
    everything = DynamicMatcher([0.4], [0, 1], k_iou=40, period=1)
    labeled = label_proposals(mark_no_gt(proposals), targets, everything, heads.num_classes)
    everything.observe(h.view_of(labeled))
    assert statistics[0] == statistics[1] != float(everything.end_iteration(0)["dynamic_matcher/iou_statistic"])


def rpn():
    torch.manual_seed(0)
    return BalancedRPN(
        in_features=["p2", "p3"],
        head=StandardRPNHead(in_channels=8, num_anchors=3),
        anchor_generator=DefaultAnchorGenerator(sizes=[[16], [32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4, 8]),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=10_000,  # everything is sampled
        positive_fraction=0.5,
        pre_nms_topk=(200, 100),
        post_nms_topk=(50, 30),
    )


@pytest.mark.parametrize("num_objects", [(4, 7), (0, 5)])
def test_anchors_in_regions_are_not_sampled(num_objects):
    module, plain = rpn(), h.targets(num_objects)
    anchors = module.anchor_generator([h.features(2)[name] for name in ("p2", "p3")])
    boxes = Boxes.cat(anchors)
    (before, _), (after, _) = (
        module.label_and_sample_anchors(anchors, targets) for targets in (plain, with_regions(plain, REGIONS))
    )
    inside = torch.tensor([scalar_in_region(box, REGIONS.tolist()) for box in boxes.tensor.tolist()])
    for labels, marked in zip(before, after):
        expected = torch.where(inside & (labels == 0), torch.full_like(labels, -1), labels)
        assert torch.equal(marked, expected) and not torch.equal(marked, labels)
    empty, _ = module.label_and_sample_anchors(anchors, with_regions(plain, torch.zeros(0, 4)))
    assert all(torch.equal(a, b) for a, b in zip(empty, before))


def test_targets_with_regions_are_instances_in_all_else():
    (plain,) = h.targets((4,))
    targets = TargetsWithRegions(plain, Boxes(REGIONS))
    assert len(targets) == 4 and targets.image_size == plain.image_size
    assert set(targets.get_fields()) == set(plain.get_fields()) and not targets.has("ignore_regions")
    assert len(targets[targets.gt_classes == 0]) == int((plain.gt_classes == 0).sum())
    assert ignore_regions_of(plain) is None
    assert ignore_regions_of(TargetsWithRegions(plain, Boxes(torch.zeros(0, 4)))) is None
    assert ignore_regions_of(targets.to("cpu")) is not None
