"""At neutral settings BalancedROIHeads is detectron2's StandardROIHeads and CascadeROIHeads, to the last bit."""

import itertools

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

import roi_heads_tools as h


@ROI_MASK_HEAD_REGISTRY.register()
class MaskHeadOnMaps(nn.Module):
    """A mask head without a pooler of the ROI heads: it takes the feature maps, as PointRend's do."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.pooler = ROIPooler(4, scales=(1 / input_shape["p2"].stride,), sampling_ratio=0, pooler_type="ROIAlignV2")
        self.head = MaskRCNNConvUpsampleHead(cfg, ShapeSpec(input_shape["p2"].channels, 4, 4))

    def forward(self, features, instances):
        boxes = [image.proposal_boxes if self.training else image.pred_boxes for image in instances]
        return self.head(self.pooler([features["p2"]], boxes), instances)


STANDARD = {}
CASCADE = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
MASKS = {"MODEL__MASK_ON": True}
CASES = {
    "standard": ("StandardROIHeads", STANDARD, {}),
    "class-agnostic": ("StandardROIHeads", CASCADE, {}),
    "no appended gt": ("StandardROIHeads", {"MODEL__ROI_HEADS__PROPOSAL_APPEND_GT": False}, {}),
    "giou": ("StandardROIHeads", {"MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE": "giou"}, {}),
    "smooth l1": ("StandardROIHeads", {"MODEL__ROI_BOX_HEAD__SMOOTH_L1_BETA": 0.5}, {}),
    "ignored band": (
        "StandardROIHeads",
        {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.3, 0.5], "MODEL__ROI_HEADS__IOU_LABELS": [0, -1, 1]},
        {},
    ),
    "masks": ("StandardROIHeads", MASKS, {}),
    "masks from the feature maps": (
        "StandardROIHeads",
        {**MASKS, "MODEL__ROI_MASK_HEAD__POOLER_TYPE": "", "MODEL__ROI_MASK_HEAD__NAME": "MaskHeadOnMaps"},
        {},
    ),
    "masks on predicted boxes": (
        "StandardROIHeads",
        {**MASKS, "MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES": True},
        {},
    ),
    "cascade": ("CascadeROIHeads", CASCADE, {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}}),
    "cascade with masks": (
        "CascadeROIHeads",
        {**CASCADE, "MODEL__MASK_ON": True},
        {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}},
    ),
    "cascade without appended gt": (
        "CascadeROIHeads",
        {**CASCADE, "MODEL__ROI_HEADS__PROPOSAL_APPEND_GT": False},
        {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}},
    ),
}
OBJECTS = [(4, 7), (0, 5), (0, 0)]


def both(case, **changes):
    name, common, ours = CASES[case]
    common = {**common, **changes}
    return h.build(h.tiny_cfg(name, **common)), h.build(h.tiny_cfg(**common, **ours))


def batch(objects, case):
    targets = h.targets(objects, masks="MODEL__MASK_ON" in CASES[case][1])
    return h.features(len(objects)), h.proposals(targets), targets


@pytest.mark.parametrize("case", CASES)
def test_keys_and_initial_weights(case):
    plain, ours = both(case)
    plain, ours = plain.state_dict(), ours.state_dict()
    assert list(plain) == list(ours)
    assert all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.parametrize("name, stages", [("StandardROIHeads", "SingleStage"), ("CascadeROIHeads", "CascadeStages")])
def test_keys_and_initial_weights_with_all_heads(name, stages):
    common = {**CASCADE, "MODEL__MASK_ON": True, "MODEL__KEYPOINT_ON": True}
    plain = h.build(h.tiny_cfg(name, **common)).state_dict()
    ours = h.build(h.tiny_cfg(**common, MODEL__BALANCED__STAGES={"NAME": stages})).state_dict()
    assert list(plain) == list(ours) and any("keypoint_head" in key for key in plain)
    assert all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.parametrize("case, objects", list(itertools.product(CASES, OBJECTS)))
def test_training_step(case, objects):
    plain, ours = both(case)
    feats, proposals, targets = batch(objects, case)
    losses, gradients, samples, logged, after = h.train_step(plain, feats, proposals, targets)
    our_losses, our_gradients, our_samples, our_logged, our_after = h.train_step(ours, feats, proposals, targets)
    assert list(losses) == list(our_losses)
    for key in losses:
        assert torch.equal(losses[key], our_losses[key]), key
    assert gradients.keys() == our_gradients.keys()
    for key in gradients:
        assert torch.equal(gradients[key], our_gradients[key]), key
    assert logged == our_logged
    assert torch.equal(after, our_after), "another number of random draws"
    for image, our_image in zip(samples, our_samples):
        for name, value in image.get_fields().items():
            ours_value = our_image.get(name)
            assert torch.equal(getattr(value, "tensor", value), getattr(ours_value, "tensor", ours_value)), name


@pytest.mark.parametrize("case, limit", [*((case, 5) for case in CASES), ("standard", -1), ("cascade", -1)])
def test_detections(case, limit):
    """At -1 all are kept."""
    plain, ours = both(case, TEST__DETECTIONS_PER_IMAGE=limit)
    feats, proposals, _ = batch(OBJECTS[0], case)
    for image, our_image in zip(h.detect(plain, feats, proposals), h.detect(ours, feats, proposals)):
        assert len(image) == 5 or limit == -1 and len(image) > 5
        assert torch.equal(image.pred_boxes.tensor, our_image.pred_boxes.tensor)
        assert torch.equal(image.scores, our_image.scores)
        assert torch.equal(image.pred_classes, our_image.pred_classes)
        if image.has("pred_masks"):
            assert torch.equal(image.pred_masks, our_image.pred_masks)


def test_the_cases_have_foreground():
    """Guards the tests above: with foreground in the batch all losses are really exercised."""
    plain, _ = both("cascade with masks")
    losses = h.train_step(plain, *batch((4, 7), "cascade with masks"))[0]
    assert all(loss > 0 for loss in losses.values()), losses
