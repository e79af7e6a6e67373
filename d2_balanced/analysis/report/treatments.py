"""What treats an imbalance, and how it is switched on. The overrides are for any config with ``BalancedROIHeads``."""

from __future__ import annotations

from typing import Dict, NamedTuple

__all__ = ["TREATMENTS", "Treatment"]


class Treatment(NamedTuple):
    """A component of a paper.

    ``component``: the name in ``RunData.components`` that tells that it is on; ``readme``, ``fragment``: paths in the
    repository; ``yaml``, ``lazy``: overrides, empty where a fragment is the way; ``function``: the fragment's LazyConfig
    twin, where there is no ``lazy``.
    """

    name: str
    component: str
    readme: str = ""
    fragment: str = ""
    yaml: str = ""
    lazy: str = ""
    function: str = ""


_LIBRA, _DYNAMIC, _RGA = "projects/LibraRCNN", "projects/DynamicRCNN", "projects/RGA_PRM"
_PRM_BRANCHES = "[{POSITIVE_FRACTION: 0.5}, {POSITIVE_FRACTION: 0.1}]"

TREATMENTS: Dict[str, Treatment] = {
    "iou_balanced_negatives": Treatment(
        "IoU-balanced negatives (Libra R-CNN)", "IoUBalancedSampler", f"{_LIBRA}/README.md",
        f"{_LIBRA}/configs/components/iou_balanced_sampling.yaml", "MODEL.BALANCED.SAMPLER.NAME IoUBalancedSampler",
        "model.roi_heads.proposal_sampler._target_=IoUBalancedSampler",
    ),
    "instance_balanced_positives": Treatment(
        "instance-balanced positives (Libra R-CNN)", "InstanceBalancedSampler", f"{_LIBRA}/README.md",
        "", "MODEL.BALANCED.SAMPLER.NAME InstanceBalancedSampler",
        "model.roi_heads.proposal_sampler._target_=InstanceBalancedSampler",
    ),
    "balanced_l1": Treatment(
        "balanced L1 loss (Libra R-CNN)", "BalancedL1", f"{_LIBRA}/README.md",
        f"{_LIBRA}/configs/components/balanced_l1.yaml", "MODEL.BALANCED.BOX_LOSS.NAME BalancedL1",
        "model.roi_heads.box_predictor.box_loss._target_=BalancedL1",
    ),
    "dynamic_labels": Treatment(
        "dynamic label assignment (Dynamic R-CNN)", "DynamicMatcher", f"{_DYNAMIC}/README.md",
        f"{_DYNAMIC}/configs/components/dynamic_label_assignment.yaml",
        'MODEL.BALANCED.MATCHER.NAME DynamicMatcher MODEL.ROI_HEADS.IOU_THRESHOLDS "[0.4]"',
        "model.roi_heads.proposal_matcher._target_=DynamicMatcher model.roi_heads.proposal_matcher.thresholds=[0.4]",
    ),
    "dynamic_smooth_l1": Treatment(
        "dynamic SmoothL1 (Dynamic R-CNN)", "DynamicSmoothL1", f"{_DYNAMIC}/README.md",
        f"{_DYNAMIC}/configs/components/dynamic_smooth_l1.yaml", "MODEL.BALANCED.BOX_LOSS.NAME DynamicSmoothL1",
        "model.roi_heads.box_predictor.box_loss._target_=DynamicSmoothL1",
    ),
    "gradient_annealing": Treatment(
        "R-CNN gradient annealing (RGA)", "GradientAnnealing", f"{_RGA}/README.md",
        f"{_RGA}/configs/components/rga.yaml",
        "SOLVER.GRADIENT_ANNEALING.INITIAL 7.0", "train.gradient_annealing.initial=7.0",
    ),
    "parallel_branches": Treatment(
        "parallel R-CNN modules (PRM)", "branches", f"{_RGA}/README.md", f"{_RGA}/configs/components/prm.yaml",
        f'MODEL.BALANCED.BRANCHES "{_PRM_BRANCHES}"', "", f"prm(model) of {_RGA}/configs/components/rga_prm.py",
    ),
    "generated_boxes": Treatment(
        "boxes generated uniformly in IoU (IoU-Uniform R-CNN)", "IoUBranch", "projects/IoUUniformRCNN/README.md",
        "projects/IoUUniformRCNN/configs/components/iou_uniform.yaml",
        function="iou_uniform(model) of projects/IoUUniformRCNN/configs/components/iou_uniform.py",
    ),
    "loops": Treatment(
        "one head in a loop (R3-CNN)", "RecursiveStages", "projects/R3CNN/README.md",
        "projects/R3CNN/configs/components/loops.yaml",
        function="loops(model) of projects/R3CNN/configs/components/r3.py",
    ),
    "repeat_factor": Treatment(
        "repeat-factor sampling of images (detectron2)", "", "",
        "", "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler DATALOADER.REPEAT_THRESHOLD 0.1",
        "dataloader.train.repeat_threshold=0.1",
    ),
}  # fmt: skip
