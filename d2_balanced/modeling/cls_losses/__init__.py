"""Classification losses: ``(logits (R, K+1), labels (R,)) -> (R,)``, unreduced (seat 5)."""

from .base import ClassificationLoss, CrossEntropy
from .class_balanced import ClassBalanced
from .equalization import EQLv2
from .focal import FocalLoss
from .ghm import GHMC
from .quality import QualityFocal, Varifocal
from .seesaw import SeesawLoss

__all__ = [
    "ClassBalanced",
    "ClassificationLoss",
    "CrossEntropy",
    "EQLv2",
    "FocalLoss",
    "GHMC",
    "QualityFocal",
    "SeesawLoss",
    "Varifocal",
]
