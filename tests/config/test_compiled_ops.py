"""Rotated boxes without detectron2's compiled operators are refused by their key; deformable convolutions are not."""

import os

import pytest
import twins

from d2_balanced.config import ConfigError, apply_overrides, check_config, check_lazy, load_lazy, load_yaml

QUICK = os.path.join(twins.ROOT, "configs/quick/faster_rcnn_R_18_FPN")
WHAT_TO_DO = "install the official detectron2, built from source"


@pytest.fixture
def compiled(monkeypatch):
    """A function that says whether the operators are there."""
    return lambda there: monkeypatch.setattr("d2_balanced.compat.has_compiled_ops", lambda: there)


@pytest.mark.parametrize("key, name", [
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    ("MODEL.ROI_HEADS.NAME", "RROIHeads"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    ("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlignRotated"),
])
def test_a_yaml_config_is_refused(compiled, key, name):
    compiled(True)
    plain = os.path.join(twins.ROOT, "configs/coco/mask_rcnn_R_50_FPN_1x.yaml")
    cfg = load_yaml(plain, [key, name])
    compiled(False)
    with pytest.raises(ConfigError, match=rf"^{key}: {name} does not go with this installation, because it is for rotated boxes.*{WHAT_TO_DO}"):
        check_config(cfg)
    check_config(load_yaml(plain))


@pytest.mark.parametrize("key, name", [
    ("model.roi_heads.box_pooler.pooler_type", "ROIAlignRotated"),
    ("model.proposal_generator._target_", "detectron2.modeling.proposal_generator.rrpn.RRPN"),
])
def test_a_lazy_config_is_refused(compiled, key, name):
    cfg = load_lazy(QUICK + ".py")
    compiled(True)
    apply_overrides(cfg, [f"{key}={name}"])
    check_lazy(cfg)
    compiled(False)
    with pytest.raises(ConfigError, match=f"^{key}: .*{WHAT_TO_DO}"):
        check_lazy(cfg)


@pytest.mark.parametrize("stem", [stem for stem in twins.config_stems() if "DCN" in stem])
def test_deformable_convolutions_need_no_compiled_operators(stem, compiled):
    compiled(False)
    twins.load_both(stem)
