"""Where Dynamic R-CNN's components cannot apply, they are refused before training: RetinaNet, RPNs, other ROI heads."""

import os

import pytest
from detectron2.config import instantiate
from detectron2.modeling import build_model
from paths import ROOT

from d2_balanced.config import ConfigError, check_config, load_lazy, load_yaml

QUICK = os.path.join(ROOT, "configs", "quick")
NO_PROPOSALS = "follows the proposals of an R-CNN, which Balanced(RetinaNet|RPN) does not have; use it in the ROI heads"
RPN = ["MODEL.PROPOSAL_GENERATOR.NAME", "BalancedRPN", "MODEL.BALANCED.RPN.BOX_LOSS.NAME", "DynamicSmoothL1"]
REFUSED = {
    "RetinaNet's anchors": (
        "retinanet", ["MODEL.BALANCED.MATCHER.NAME", "DynamicMatcher"], "RetinaNet, because the detector has no BalancedROIHeads, and would ignore",
    ),
    "an R-CNN's key in RetinaNet": (
        "retinanet", ["MODEL.BALANCED.BOX_LOSS.NAME", "DynamicSmoothL1"], "RetinaNet, because the detector has no BalancedROIHeads, and would ignore",
    ),
    "RetinaNet's loss": ("retinanet", ["MODEL.BALANCED.RETINANET.BOX_LOSS.NAME", "DynamicSmoothL1"], NO_PROPOSALS),
    "an RPN's loss": ("faster_rcnn", RPN, NO_PROPOSALS),
    "detectron2's heads": (
        "faster_rcnn",
        ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.BALANCED.MATCHER.NAME", "DynamicMatcher"],
        "StandardROIHeads, because it would ignore",
    ),
    "two thresholds": (
        "faster_rcnn",
        ["MODEL.BALANCED.MATCHER.NAME", "DynamicMatcher", "MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.3, 0.5]",
         "MODEL.ROI_HEADS.IOU_LABELS", "[0, -1, 1]"],
        "MODEL.BALANCED.MATCHER: DynamicMatcher: thresholds must be one IoU",
    ),
    "a loss on boxes beside it": (
        "faster_rcnn",
        ["MODEL.BALANCED.BOX_LOSS.NAME", "DynamicSmoothL1", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou"],
        "MODEL.BALANCED.BOX_LOSS.*MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE: giou",
    ),
}  # fmt: skip
RPN_NODE = "model.proposal_generator"
REFUSED_LAZY = {
    "RetinaNet's anchors": (
        "retinanet",
        ["model.anchor_matcher._target_=DynamicMatcher", "model.anchor_matcher.thresholds=[0.4]",
         "model.anchor_matcher.labels=[0,1]"],
    ),
    "RetinaNet's loss": ("retinanet", ["model.box_loss._target_=DynamicSmoothL1"]),
    "an RPN's loss": (
        "faster_rcnn", [f"{RPN_NODE}._target_=BalancedRPN", f"{RPN_NODE}.box_loss._target_=DynamicSmoothL1"],
    ),
    "an RPN's anchors": (
        "faster_rcnn",
        [f"{RPN_NODE}._target_=BalancedRPN", f"{RPN_NODE}.anchor_matcher._target_=DynamicMatcher",
         f"{RPN_NODE}.anchor_matcher.thresholds=[0.4]", f"{RPN_NODE}.anchor_matcher.labels=[0,1]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_yaml(case):
    model, overrides, message = REFUSED[case]
    cfg = load_yaml(os.path.join(QUICK, f"{model}_R_18_FPN.yaml"), [*overrides, "MODEL.DEVICE", "cpu"])
    with pytest.raises((ConfigError, ValueError), match=message):
        check_config(cfg)
        build_model(cfg)


@pytest.mark.parametrize("case", REFUSED_LAZY)
def test_lazy(case):
    model, overrides = REFUSED_LAZY[case]
    cfg = load_lazy(os.path.join(QUICK, f"{model}_R_18_FPN.py"), overrides)
    with pytest.raises(ValueError, match=NO_PROPOSALS):
        instantiate(cfg.model)
