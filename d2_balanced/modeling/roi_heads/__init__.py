"""The training step of two-stage detectors, with stages, parallel branches and an IoU branch as independent axes."""

from .balanced_roi_heads import BalancedROIHeads
from .branches import BoxBranch
from .conv_head import NonLocalConvHead
from .double_head import DoubleHead
from .flow_mask_head import FlowMaskHead
from .generic_pooler import GenericROIPooler
from .iou_branch import IoUBranch
from .mask_branch import FirstStageMasks, InterleavedMasks
from .mask_iou_head import MaskIoUHead, NonLocalMaskIoUHead
from .side_aware_head import SideAwareHead
from .stages import CascadeStages, RecursiveStages, SingleStage, Stages

__all__ = [
    "BalancedROIHeads",
    "BoxBranch",
    "CascadeStages",
    "DoubleHead",
    "FirstStageMasks",
    "FlowMaskHead",
    "GenericROIPooler",
    "InterleavedMasks",
    "IoUBranch",
    "MaskIoUHead",
    "NonLocalConvHead",
    "NonLocalMaskIoUHead",
    "RecursiveStages",
    "SideAwareHead",
    "SingleStage",
    "Stages",
]
