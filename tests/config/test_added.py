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


def test_only_what_fragments_set_is_compared():
    settings = flatten({"A": {"NAME": "x", "B": [{"C": 1}, {"C": 2}], "D": [1, 2]}, "E": {}}, lists=True)
    assert settings == {"A.NAME": "x", "A.B.0.C": 1, "A.B.1.C": 2, "A.D": [1, 2]}
    additions = Additions()
    additions.check("first", settings, {**settings, "A.D": [3]})
    additions.check("second", {**settings, "A.D": [3]}, {**settings, "A.D": [3], "A.NAME": "y"})  # the config's own before
    with pytest.raises(ConfigError, match="--add second and --add third both set A.NAME, to 'y' and 'z'"):
        additions.check("third", {"A.NAME": "y"}, {"A.NAME": "z"})
