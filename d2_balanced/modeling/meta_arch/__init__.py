"""One-stage detectors with components at their seats."""

from .retinanet import BalancedRetinaNet

__all__ = ["BalancedRetinaNet"]
