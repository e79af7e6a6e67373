"""Box losses: ``(pred (F, 4), target (F, 4)) -> (F, 4) or (F,)``, unreduced, of deltas or of boxes (seat 5)."""

from .buckets import BucketLoss
from .dynamic_smooth_l1 import DynamicSmoothL1
from .ghm import GHMR
from .kl import KLLoss
from .l1 import BalancedL1, SmoothL1, balanced_l1_loss
from .overlap import BoundedIoU, CIoU, DIoU, EIoU, GIoU, IoULoss

__all__ = [
    "BalancedL1",
    "BoundedIoU",
    "BucketLoss",
    "CIoU",
    "DIoU",
    "DynamicSmoothL1",
    "EIoU",
    "GHMR",
    "GIoU",
    "IoULoss",
    "KLLoss",
    "SmoothL1",
    "balanced_l1_loss",
]
