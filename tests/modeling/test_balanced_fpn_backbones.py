"""The balanced pyramids as backbones: checkpoints of plain FPN, gradients, tracing, settings that are refused."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone

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
    from detectron2.modeling.backbone.fpn import LastLevelP6P7

    bottom_up = build_backbone(tiny_cfg("build_retinanet_resnet_fpn_backbone")).bottom_up
    top_block = LastLevelP6P7(512, 16)
    for pyramid in (BalancedFPN, BalancedPAFPN):
        with pytest.raises(ValueError, match=r"channels of all levels must be equal.*\[8, 8, 8, 16, 16\]"):
            pyramid(bottom_up, ["res3", "res4", "res5"], 8, top_block=top_block)


@pytest.mark.parametrize("kind", ["balanced_fpn", "balanced_pafpn"])
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("REFINE_LEVEL", "5", r"refine_level must be in 0\.\.4.*got 5"),
        ("REFINE_LEVEL", "-1", r"refine_level must be in 0\.\.4.*got -1"),
        ("REFINEMENT", "nonlocal", "refinement must be one of none, conv, non_local, got 'nonlocal'"),
        ("REFINE_LEVL", "1", "refine_levl"),
    ],
)
def test_bad_settings_name_the_key(kind, key, value, message):
    cfg = tiny_cfg(f"build_resnet_{kind}_backbone", f"MODEL.BALANCED.FPN.{key}", value)
    check_config(cfg)
    with pytest.raises(ValueError, match=rf"MODEL\.BALANCED\.FPN: .*{message}"):
        build_backbone(cfg)


def test_settings_that_a_plain_backbone_would_ignore_are_refused():
    cfg = tiny_cfg("build_resnet_fpn_backbone", "MODEL.BALANCED.FPN.REFINE_LEVEL", "1")
    with pytest.raises(ConfigError, match="build_resnet_fpn_backbone would ignore it.*build_resnet_balanced_fpn"):
        check_config(cfg)
