"""The training step of two-stage detectors, with stages, parallel branches and an IoU branch as independent axes."""

from .balanced_roi_heads import BalancedROIHeads
from .branches import BoxBranch
from .stages import CascadeStages, RecursiveStages, SingleStage, Stages

__all__ = ["BalancedROIHeads", "BoxBranch", "CascadeStages", "RecursiveStages", "SingleStage", "Stages"]
