"""How a minibatch is drawn from an image's labelled proposals or anchors (seat 3).

``base`` splits the minibatch into positives and negatives; ``positives`` and ``iou_balanced`` say which are drawn.
"""

from .base import ProposalSampler, sample_images
from .iou_balanced import IoUBalancedSampler
from .samplers import HardRatioSampler, InstanceBalancedSampler, RandomSampler

__all__ = [
    "ProposalSampler",
    "sample_images",
    "RandomSampler",
    "InstanceBalancedSampler",
    "IoUBalancedSampler",
    "HardRatioSampler",
]
