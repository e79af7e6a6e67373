"""One-stage detectors: RetinaNet with components at its seats, and FCOS."""

from .fcos import BalancedFCOS, BalancedFCOSHead
from .retinanet import BalancedRetinaNet

__all__ = ["BalancedFCOS", "BalancedFCOSHead", "BalancedRetinaNet"]
