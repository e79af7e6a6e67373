"""BalancedFCOS: detectron2's FCOS, with repeatable gradients, on images without objects, from both config systems."""

import os

import pytest
import torch
from dense_tools import OBJECTS, K, ToyBackbone, image
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch import fcos as detectron2_fcos
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.utils.events import EventStorage
from fvcore.nn import sigmoid_focal_loss
from paths import ROOT
from tiny_runs import quick_config

from d2_balanced.engine.open import open_experiment
from d2_balanced.engine.training_state import gather_plain_attributes
from d2_balanced.modeling.meta_arch import BalancedFCOS
from d2_balanced.utils.errors import Refusal


def build(cls):
    torch.manual_seed(0)
    head = FCOSHead(input_shape=[ShapeSpec(channels=4)] * 2, num_classes=K, conv_dims=[4], norm="")
    return cls(
        backbone=ToyBackbone(), head=head, head_in_features=["p3", "p4"], num_classes=K, test_score_thresh=0.01,
        pixel_mean=[127.5] * 3, pixel_std=[64.0] * 3,
    )  # fmt: skip


def step(model, batch):
    model.train().zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return {"losses": losses, "gradients": {n: p.grad.clone() for n, p in model.named_parameters()}}


def test_it_is_detectron2s_with_its_eager_focal_loss_to_the_bit(monkeypatch):
    monkeypatch.setattr(detectron2_fcos, "sigmoid_focal_loss_jit", sigmoid_focal_loss)
    theirs, ours = build(FCOS), build(BalancedFCOS)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for _ in range(2):  # the second step has a moved normaliser
        torch.testing.assert_close(step(ours, OBJECTS), step(theirs, OBJECTS), rtol=0, atol=0)
    with torch.no_grad():
        found = [model.eval()(OBJECTS)[0]["instances"] for model in (ours, theirs)]
    assert len(found[0]) and torch.equal(found[0].pred_boxes.tensor, found[1].pred_boxes.tensor)


def test_gradients_repeat_to_the_bit_from_the_first_call():
    model = build(BalancedFCOS)
    results = []
    for _ in range(4):
        model.loss_normalizer = 10.0
        results.append(step(model, OBJECTS)["gradients"])
    assert all(torch.equal(each[name], results[0][name]) for each in results for name in each)


def test_an_image_without_objects_is_background():
    model = build(BalancedFCOS)
    both, alone = [], []
    for batch, kept in ((([OBJECTS[0], image(seed=1)]), both), ([OBJECTS[0]], alone), ([image(seed=1)], alone)):
        model.loss_normalizer = 10.0
        losses = step(model, batch)["losses"]
        # Undo the moving average: the image without objects counts as one positive, as in detectron2.
        kept.append({name: loss.detach() * model.loss_normalizer for name, loss in losses.items()})
    assert alone[1]["loss_fcos_loc"] == alone[1]["loss_fcos_ctr"] == 0 < alone[1]["loss_fcos_cls"]
    for name, loss in both[0].items():
        torch.testing.assert_close(loss, alone[0][name] + alone[1][name])


def test_both_config_systems_build_it_and_the_normaliser_is_kept():
    experiment = open_experiment(quick_config("fcos"), ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    ours = experiment.build_model()
    torch.manual_seed(0)
    lazy = instantiate(LazyConfig.load(quick_config("fcos", "py")).model)
    assert type(ours) is type(lazy) is BalancedFCOS and experiment.num_classes == ours.num_classes
    assert all(torch.equal(value, lazy.state_dict()[name]) for name, value in ours.state_dict().items())
    assert ours.backbone.top_block.in_feature == lazy.backbone.top_block.in_feature == "p5"
    plain = ("focal_loss_alpha", "focal_loss_gamma", "test_score_thresh", "test_topk_candidates", "test_nms_thresh")
    for name in (*plain, "max_detections_per_image", "head_in_features", "input_format", "center_sampling_radius"):
        assert getattr(ours, name) == getattr(lazy, name), name
    step(ours, OBJECTS)
    assert any("loss_normalizer" in name for name in gather_plain_attributes(ours))


@pytest.mark.parametrize("key, value, said", [
    ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", "0.5", "no anchors"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[16.0]]", "no anchors"),
    ("MODEL.BALANCED.RETINANET.BOX_LOSS.NAME", "BalancedL1", "BalancedRetinaNet"),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.6]", "no ROI heads"),
    ("MODEL.RPN.SMOOTH_L1_BETA", "0.5", "no RPN"),
])  # fmt: skip
def test_what_it_would_ignore_is_refused(key, value, said):
    with pytest.raises(Refusal, match=said) as caught:
        open_experiment(os.path.join(ROOT, "configs", "quick", "fcos_R_18_FPN.yaml"), [key, value])
    assert key in str(caught.value) and "BalancedFCOS" in str(caught.value)


def test_a_pyramid_without_its_levels_is_refused():
    words = ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.DEVICE", "cpu"]
    experiment = open_experiment(quick_config("fcos"), words)
    with pytest.raises(Refusal, match="p7: .*build_resnet_fpn_backbone|p7"):
        experiment.build_model()
