"""How a minibatch is drawn from an image's labelled proposals or anchors (seat 3)."""

from .base import ProposalSampler
from .random_sampler import RandomSampler

__all__ = ["ProposalSampler", "RandomSampler"]
