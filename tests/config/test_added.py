"""Several fragments on one config: two components for one seat are refused, other settings that change hands are said."""

import logging

import pytest
from paths import ROOT

from d2_balanced.config.added import Additions
from d2_balanced.config.yacs import flatten
from d2_balanced.engine.open import open_experiment
from d2_balanced.utils.errors import ConfigError

QUICK = f"{ROOT}/configs/quick/faster_rcnn_R_18_FPN"
SAME_SEAT = [
    ("Peers/pisa", "Peers/ohem", "PISA", "OHEM"),
    ("Peers/giou", "Peers/sabl", "GIoU", "BucketLoss"),
    ("Peers/double_head", "Peers/sabl", "DoubleHead", "SideAwareHead"),
    ("Peers/soft_nms_linear", "Peers/box_voting", "SoftNMS", "BoxVoting"),
]


@pytest.mark.parametrize("suffix", ["yaml", "py"])
@pytest.mark.parametrize("first, second, one, other", SAME_SEAT)
def test_two_components_for_one_seat_are_refused_in_any_order(suffix, first, second, one, other):
    for fragments, components in (((first, second), (one, other)), ((second, first), (other, one))):
        with pytest.raises(ConfigError, match="there is one seat for both") as error:
            open_experiment(f"{QUICK}.{suffix}", fragments=fragments)
        said = str(error.value)
        assert all(f"--add {fragment}" in said for fragment in fragments)
        assert said.index(components[0]) < said.index(components[1])


@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_a_setting_that_changes_hands_is_said(suffix, caplog):
    with caplog.at_level(logging.WARNING):
        open_experiment(f"{QUICK}.{suffix}", fragments=["Peers/double_head", "Peers/ghm_c"])
    (warning,) = [record.getMessage() for record in caplog.records if "--add" in record.getMessage()]
    assert "Peers/double_head had set" in warning and "2.0; with --add Peers/ghm_c it is nothing" in warning


@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_different_seats_mix_without_a_word(suffix, caplog):
    with caplog.at_level(logging.WARNING):
        open_experiment(f"{QUICK}.{suffix}", fragments=["LibraRCNN/iou_balanced_sampling", "RGA_PRM/rga", "Peers/giou"])
        open_experiment(f"{QUICK}.{suffix}", fragments=["Peers/pisa", "Peers/pisa"])  # says the same twice
    assert not [record for record in caplog.records if "--add" in record.getMessage()]


@pytest.mark.parametrize("copying, fragment, key", [
    ("RGA_PRM/prm", "LibraRCNN/balanced_l1", "box_predictor.box_loss"),
    ("RGA_PRM/prm", "LibraRCNN/iou_balanced_sampling", "proposal_sampler"),
    ("IoUUniformRCNN/iou_uniform", "R3CNN/large_box_head", "box_head"),
])  # fmt: skip
def test_what_a_lazy_config_has_copies_of_is_no_longer_changed(copying, fragment, key):
    with pytest.raises(ConfigError, match=f"--add {fragment} changes model.roi_heads.{key}.* before the fragment that makes"):
        open_experiment(f"{QUICK}.py", fragments=[copying, fragment])
    heads = open_experiment(f"{QUICK}.py", fragments=[fragment, copying, "RGA_PRM/rga"]).cfg.model.roi_heads
    for branch in heads.branches:
        assert branch.sampler == heads.proposal_sampler and branch.box_head == heads.box_head
        assert branch.box_predictor.box_loss == heads.box_predictor.box_loss
    assert len(heads.branches) == (copying == "RGA_PRM/prm")
    assert heads.branches or heads.iou_branch.iou_head == heads.box_head
    open_experiment(f"{QUICK}.yaml", fragments=[copying, fragment])


def test_only_what_fragments_set_is_compared():
    settings = flatten({"A": {"NAME": "x", "B": [{"C": 1}, {"C": 2}], "D": [1, 2]}, "E": {}}, lists=True)
    assert settings == {"A.NAME": "x", "A.B.0.C": 1, "A.B.1.C": 2, "A.D": [1, 2]}
    additions = Additions()
    additions.check("first", settings, {**settings, "A.D": [3]})
    additions.check("second", {**settings, "A.D": [3]}, {**settings, "A.D": [3], "A.NAME": "y"})  # the config's own before
    with pytest.raises(ConfigError, match="--add second and --add third both set A.NAME, to 'y' and 'z'"):
        additions.check("third", {"A.NAME": "y"}, {"A.NAME": "z"})
