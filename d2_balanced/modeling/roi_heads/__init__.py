"""The training step of two-stage detectors, with stages, parallel branches and an IoU branch as independent axes."""

from .balanced_roi_heads import BalancedROIHeads
from .branches import BoxBranch
from .flow_mask_head import FlowMaskHead
from .iou_branch import IoUBranch
from .mask_branch import FirstStageMasks, InterleavedMasks
from .stages import CascadeStages, RecursiveStages, SingleStage, Stages

__all__ = [
    "BalancedROIHeads",
    "BoxBranch",
    "CascadeStages",
    "FirstStageMasks",
    "FlowMaskHead",
    "InterleavedMasks",
    "IoUBranch",
    "RecursiveStages",
    "SingleStage",
    "Stages",
]
