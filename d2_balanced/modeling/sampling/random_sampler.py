"""detectron2's own sampler, registered."""

from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY

from .base import ProposalSampler

__all__ = ["RandomSampler"]


@PROPOSAL_SAMPLER_REGISTRY.register()
class RandomSampler(ProposalSampler):
    """Positives and negatives uniformly at random: detectron2's ``subsample_labels``, to the bit (the default).

    Args:
        neg_pos_ub: see :class:`ProposalSampler`; Libra R-CNN's released RPN uses 5.
    """
