"""Deformable convolutions without detectron2's compiled operators are refused by their key."""

import os

import pytest
import twins

from d2_balanced.config import ConfigError, apply_overrides, check_config, check_lazy, load_lazy, load_yaml

STEM = os.path.join(twins.ROOT, "projects/DynamicRCNN/configs/dynamic_faster_rcnn_R_101_DCNv2_FPN_3x_multi_scale")
DEFORMABLE = [stem for stem in twins.config_stems() if "DCN" in stem]
WHAT_TO_DO = "Install the official detectron2, built from source"


@pytest.fixture
def compiled(monkeypatch):
    """A function that says whether the operators are there."""
    return lambda there: monkeypatch.setattr("d2_balanced.compat.has_compiled_ops", lambda: there)


def test_a_yaml_config_is_refused(compiled):
    cfg = load_yaml(STEM + ".yaml")
    compiled(True)
    check_config(cfg)
    compiled(False)
    with pytest.raises(ConfigError, match=rf"^MODEL.RESNETS.DEFORM_ON_PER_STAGE: \[False, True.*{WHAT_TO_DO}"):
        check_config(cfg)
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False] * 4
    check_config(cfg)


def test_a_lazy_config_is_refused(compiled):
    compiled(False)
    key = r"model.backbone.bottom_up.stages.1.block_class \(MODEL.RESNETS.DEFORM_ON_PER_STAGE in yaml\)"
    with pytest.raises(ConfigError, match=rf"^{key} in .*_multi_scale.py: DeformBottleneckBlock.*{WHAT_TO_DO}"):
        load_lazy(STEM + ".py")
    compiled(True)
    load_lazy(STEM + ".py")


@pytest.mark.parametrize("stem", DEFORMABLE)
def test_every_deformable_config_is_accepted_with_the_operators_only(stem, compiled):
    compiled(True)
    cfg, _ = twins.load_both(stem)
    compiled(False)
    with pytest.raises(ConfigError, match=WHAT_TO_DO):
        check_config(cfg)
    with pytest.raises(ConfigError, match=WHAT_TO_DO):
        load_lazy(os.path.join(twins.ROOT, stem + ".py"))


def test_a_class_that_is_named_in_an_override_or_a_saved_config_is_refused(compiled):
    compiled(False)
    cfg = load_lazy(os.path.join(twins.ROOT, "configs/quick/faster_rcnn_R_18_FPN.py"))
    with pytest.raises(ConfigError, match="bottom_up.stages.block_class"):
        name = "detectron2.modeling.backbone.resnet.DeformBottleneckBlock"
        apply_overrides(cfg, [f"model.backbone.bottom_up.stages.block_class={name}"])
        check_lazy(cfg)
