"""Components that weigh the samples of a minibatch, or choose them, by what a step predicts for them (seat 5)."""

from .class_balanced import ClassBalancedRoIs
from .iou_balanced import IoUBalanced
from .ohem import OHEM
from .pisa import PISA
from .sampling_free import SamplingFree
from .seat import RoILosses, RoIWeights, SampleWeights

__all__ = [
    "ClassBalancedRoIs",
    "IoUBalanced",
    "OHEM",
    "PISA",
    "RoILosses",
    "RoIWeights",
    "SampleWeights",
    "SamplingFree",
]
