"""The balanced pyramids as backbones: checkpoints of plain FPN, gradients, tracing, settings that are refused."""

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from d2_balanced.config import ConfigError, check_config
from d2_balanced.modeling.backbone import BalancedFPN, BalancedPAFPN
from pyramid_tools import retinanet_of, tiny_cfg
from reference import pyramid as reference


@pytest.mark.parametrize("kind, parts", [("balanced_fpn", {"balance"}), ("balanced_pafpn", {"balance", "pafpn"})])
@pytest.mark.parametrize("of", [str, retinanet_of])
def test_plain_fpn_checkpoint_lacks_only_the_refinement(kind, parts, of):
    plain = build_backbone(tiny_cfg(of("build_resnet_fpn_backbone")))
    balanced = build_backbone(tiny_cfg(of(f"build_resnet_{kind}_backbone")))
    result = balanced.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[0].split("_")[0] for key in result.missing_keys} == parts
    assert balanced.output_shape() == plain.output_shape()


@pytest.mark.parametrize("kind", ["balanced_fpn", "pafpn", "balanced_pafpn"])
@pytest.mark.parametrize("of, levels", [(str, "p2 p3 p4 p5 p6"), (retinanet_of, "p3 p4 p5 p6 p7")])
def test_every_parameter_of_a_backbone_gets_a_gradient(kind, of, levels):
    torch.manual_seed(0)
    backbone = build_backbone(tiny_cfg(of(f"build_resnet_{kind}_backbone"), "MODEL.BACKBONE.FREEZE_AT", "0"))
    features = backbone(torch.randn(1, 3, 96, 160))
    assert list(features) == levels.split()
    for name, shape in backbone.output_shape().items():
        assert features[name].shape[1] == shape.channels == 8
    sum(x.square().mean() for x in features.values()).backward()
    unused = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unused == []  # a parameter without a gradient would stop DDP


@pytest.mark.parametrize("kind", ["pafpn", "balanced_pafpn"])
@pytest.mark.parametrize("of", [str, retinanet_of])
def test_the_form_of_a_pafpn_is_a_key(kind, of):
    name = of(f"build_resnet_{kind}_backbone")
    assert build_backbone(tiny_cfg(name)).form == "panet"
    backbone = build_backbone(tiny_cfg(name, "MODEL.BALANCED.PAFPN.FORM", "released"))
    assert backbone.form == "released" and hasattr(backbone, "pafpn_output2") == (of is str)
    assert all(p.shape[0] == 8 for n, p in backbone.named_parameters() if "pafpn" in n)
    with pytest.raises(ConfigError, match="MODEL.BALANCED.PAFPN.FORM.*form must be one of panet, released, got 'libra'"):
        build_backbone(tiny_cfg(name, "MODEL.BALANCED.PAFPN.FORM", "libra"))
    with pytest.raises(ConfigError, match="MODEL.BALANCED.PAFPN.FORM"):
        check_config(tiny_cfg(of("build_resnet_balanced_fpn_backbone"), "MODEL.BALANCED.PAFPN.FORM", "released"))


def test_without_refinement_it_adds_the_mean_level_to_fpn():
    torch.manual_seed(0)
    cfg = tiny_cfg("build_resnet_balanced_fpn_backbone", "MODEL.BALANCED.FPN.REFINEMENT", "none")
    balanced, plain = build_backbone(cfg), build_backbone(tiny_cfg("build_resnet_fpn_backbone"))
    plain.load_state_dict(balanced.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = reference.balanced([x[0].double().numpy() for x in plain(image).values()], refine_level=2)
        for output, level in zip(balanced(image).values(), wanted):
            np.testing.assert_allclose(output[0].numpy(), level, rtol=0, atol=1e-5)


def test_whole_backbone_traced_on_one_odd_size_runs_on_another():
    torch.manual_seed(0)
    backbone = build_backbone(tiny_cfg("build_resnet_balanced_pafpn_backbone")).eval()
    with torch.no_grad():
        traced = torch.jit.trace(backbone, torch.randn(1, 3, 160, 96), strict=False)  # P5 is 5 x 3, P6 is 3 x 2
        image = torch.randn(1, 3, 224, 288)
        outputs, wanted = traced(image), backbone(image)
    for name in wanted:
        torch.testing.assert_close(outputs[name], wanted[name], rtol=0, atol=1e-5)


def test_extra_levels_of_other_channels_are_refused():
    bottom_up = build_backbone(tiny_cfg("build_retinanet_resnet_fpn_backbone")).bottom_up
    top_block = LastLevelP6P7(512, 16)
    for pyramid in (BalancedFPN, BalancedPAFPN):
        with pytest.raises(ValueError, match=r"channels of all levels must be equal.*\[8, 8, 8, 16, 16\]"):
            pyramid(bottom_up, ["res3", "res4", "res5"], 8, top_block=top_block)


@pytest.mark.parametrize("kind", ["balanced_fpn", "balanced_pafpn"])
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("REFINE_LEVEL", "5", r"refine_level must be from 0 to 4, got 5"),
        ("REFINE_LEVEL", "-1", r"refine_level must be from 0 to 4, got -1"),
        ("REFINE_LEVEL", "0.5", "refine_level must be a whole number, from 0 to 4, got 0.5"),
        ("REFINEMENT", "nonlocal", "refinement must be one of none, conv, non_local, got 'nonlocal'"),
        ("REFINE_LEVL", "1", "refine_levl"),
    ],
)
def test_bad_settings_name_the_key(kind, key, value, message):
    cfg = tiny_cfg(f"build_resnet_{kind}_backbone", f"MODEL.BALANCED.FPN.{key}", value)
    check_config(cfg)
    with pytest.raises(ValueError, match=rf"^MODEL\.BALANCED\.FPN\b.*{message}"):
        build_backbone(cfg)


def test_settings_that_a_plain_backbone_would_ignore_are_refused():
    cfg = tiny_cfg("build_resnet_fpn_backbone", "MODEL.BALANCED.FPN.REFINE_LEVEL", "1")
    with pytest.raises(ConfigError, match="build_resnet_fpn_backbone, because it would ignore.*build_resnet_balanced_fpn"):
        check_config(cfg)


SMALL_MODEL = """
MODEL.DEVICE cpu
MODEL.ROI_HEADS.NUM_CLASSES 2
MODEL.ROI_HEADS.IN_FEATURES ['p2','p3','p4','p5']
MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead
MODEL.ROI_BOX_HEAD.NUM_FC 1
MODEL.ROI_BOX_HEAD.FC_DIM 16
MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 3
MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True
MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead
MODEL.ROI_MASK_HEAD.CONV_DIM 8
MODEL.ROI_MASK_HEAD.NUM_CONV 1
MODEL.RPN.IN_FEATURES ['p2','p3','p4','p5','p6']
MODEL.RETINANET.NUM_CLASSES 2
MODEL.RETINANET.IN_FEATURES ['p3','p4','p5','p6','p7']
MODEL.ANCHOR_GENERATOR.SIZES [[8],[16],[32],[64],[128]]
"""
DETECTORS = {
    "Faster R-CNN": "MODEL.ROI_HEADS.NAME StandardROIHeads",
    "Mask R-CNN": "MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.MASK_ON True",
    "Cascade R-CNN": "MODEL.ROI_HEADS.NAME CascadeROIHeads",
    "RetinaNet": "MODEL.META_ARCHITECTURE RetinaNet",
}


@pytest.mark.parametrize("detector", list(DETECTORS))
@pytest.mark.parametrize("kind", ["balanced_fpn", "balanced_pafpn"])
def test_detectors_train_and_detect_with_it(detector, kind):
    torch.manual_seed(0)
    name, level = f"build_resnet_{kind}_backbone", "2"
    if detector == "RetinaNet":
        name, level = retinanet_of(name), "1"
    overrides = f"{SMALL_MODEL} {DETECTORS[detector]} MODEL.BALANCED.FPN.REFINE_LEVEL {level}"
    model = build_model(tiny_cfg(name, *overrides.split(), "MODEL.BACKBONE.FREEZE_AT", "0"))
    boxes = torch.tensor([[10.0, 10.0, 50.0, 60.0], [30.0, 5.0, 80.0, 50.0]])
    target = Instances((90, 110), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 1]))
    target.gt_masks = BitMasks(torch.ones(2, 90, 110, dtype=torch.bool))
    image = {"image": torch.rand(3, 90, 110) * 255, "instances": target, "height": 90, "width": 110}
    with EventStorage():
        losses = model([image, image])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.backbone.balance.parameters())
    with torch.no_grad():
        assert "instances" in model.eval()([image])[0]


def test_lazy_config_node_builds_the_same_backbone():
    built = build_backbone(tiny_cfg("build_resnet_balanced_fpn_backbone"))
    node = L(BalancedFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
            out_features=["res2", "res3", "res4", "res5"],
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=8,
        top_block=L(LastLevelMaxPool)(),
        refine_level=2,
        refinement="non_local",
    )
    backbone = instantiate(node)
    assert set(backbone.state_dict()) == set(built.state_dict())
    node.refine_level = 9
    with pytest.raises(ValueError, match=r"refine_level must be from 0 to 4"):
        instantiate(node)
