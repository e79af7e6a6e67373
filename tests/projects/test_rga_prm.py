"""The RGA_PRM project: what its configs switch on, and that the paper's figures are copied as printed."""

import os

import pytest
import torch
import yaml
from paths import ROOT, shared_file
from tiny_runs import TINY

from config import twins
from d2_balanced.config import load_lazy, load_yaml
from detectron2.config import instantiate
from detectron2.modeling import build_model

PROJECT = os.path.join(ROOT, "projects", "RGA_PRM")


def test_figures_are_the_paper_s():
    """Every row's figures, in the order of the table's columns, are words of one line of the paper (rga_prm.txt)."""
    with open(shared_file("papers", "rga_prm.txt"), encoding="utf-8") as file:
        lines = [[word for word in line.split() if word[:1].isdigit()] for line in file]
    with open(os.path.join(PROJECT, "tables.yaml"), encoding="utf-8") as file:
        tables = yaml.safe_load(file)
    assert list(tables) == [f"table_{n}" for n in range(1, 9)]
    missing = []
    for table in tables.values():
        for row in table["rows"]:
            # CrowdHuman's have two decimals in the paper, all others one.
            wanted = [f"{v:.2f}" if "crowdhuman" in k else f"{v:.1f}" for k, v in row["paper"].items()]
            if not any(wanted == words[k : k + len(wanted)] for words in lines for k in range(len(words))):
                missing.append((table["title"], row["name"], wanted))
    assert not missing


@pytest.mark.parametrize("name", ["rga_quick", "rga_prm_quick", "rga_prm_faster_rcnn_R_50_FPN_1x"])
def test_rga_is_seven_in_both_twins(name):
    path = os.path.join(PROJECT, "configs", name)
    assert load_yaml(path + ".yaml").SOLVER.GRADIENT_ANNEALING == {"INITIAL": 7.0}
    assert load_lazy(path + ".py").train.gradient_annealing.initial == 7.0


@pytest.mark.parametrize("name", ["prm_quick", "rga_prm_quick_cascade"])
def test_prm_has_two_modules_that_follow_the_data_s_classes(name):
    """The branches' predictors refer to the heads' number of classes, also from inside a cascade's lists."""
    cfg = load_lazy(os.path.join(PROJECT, "configs", name + ".py"))
    cfg.model.roi_heads.num_classes = 3
    with torch.device("meta"):
        heads = instantiate(cfg.model).roi_heads
    assert [branch.positive_fraction for branch in heads.branches] == [0.5, 0.1] and heads.main_branch == 0
    for branch in heads.branches:
        branch.for_each_predictor(lambda predictor: assert_classes(predictor, 3))


def assert_classes(predictor, num_classes):
    assert predictor.cls_score.out_features == num_classes + 1


@pytest.mark.parametrize("test_branches", [[0], [1]])
def test_each_module_is_evaluated_by_one_override(test_branches):
    path = os.path.join(PROJECT, "configs", "prm_quick.yaml")
    settings = [*TINY, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    plain = load_yaml(path, settings)
    alone = load_yaml(path, [*settings, "MODEL.BALANCED.TEST_BRANCHES", str(test_branches)])
    found = []
    for cfg in (plain, alone):
        cfg.MODEL.DEVICE = "cpu"
        torch.manual_seed(0)
        model = build_model(cfg)
        found.append(twins.detections(model, twins.inputs(cfg))["scores"])
        assert model.roi_heads.test_branches == (test_branches if cfg is alone else [0, 1])
    assert found[0].shape != found[1].shape or not torch.equal(*found)
