"""The command that counts parameters, on the models of R3-CNN's table 1."""

import os

import pytest
from paths import ROOT

from d2_balanced.analysis.parameters import main

R3 = os.path.join(ROOT, "projects", "R3CNN", "configs")
COCO = os.path.join(ROOT, "configs", "coco")
# The paper's table 1 in thousands, rounded down; its backbones train the scales and offsets of batch norm in the three
# stages that are not frozen, where detectron2's are constants.
BATCH_NORM = 50_176
CONFIGS = {
    os.path.join(COCO, "mask_rcnn_R_50_FPN_1x"): 44_170,
    os.path.join(R3, "htc_R_50_FPN_1x"): 77_230,
    os.path.join(R3, "r3_mask_rcnn_R_50_FPN_1x"): 43_912,
    os.path.join(R3, "r3_large_mask_rcnn_R_50_FPN_1x"): 50_072,
}


@pytest.mark.parametrize("stem, thousands", CONFIGS.items())
def test_counts_are_the_papers_but_for_batch_norm(stem, thousands):
    count = main([stem + ".yaml"])[stem + ".yaml"]["all"]
    assert count == main([stem + ".py"])[stem + ".py"]["all"]
    assert (count + BATCH_NORM) // 1000 == thousands


def test_loops_cost_nothing():
    paths = [os.path.join(R3, f"r3_{n}_loops_mask_rcnn_R_50_FPN_1x.yaml") for n in (2, 4)]
    two, four = main(paths).values()
    assert two == four


def test_a_refused_config_ends_with_its_message(capsys, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("MODEL: {ROI_HEADS: {NUM_CLASS: 3}}\n")
    with pytest.raises(SystemExit):
        main([str(path)])
    assert "MODEL.ROI_HEADS.NUM_CLASS" in capsys.readouterr().err
