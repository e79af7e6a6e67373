"""The registered samplers that differ from one another in their positives only."""

from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY

from .base import ProposalSampler

__all__ = ["RandomSampler", "InstanceBalancedSampler", "HardRatioSampler"]


@PROPOSAL_SAMPLER_REGISTRY.register()
class RandomSampler(ProposalSampler):
    """Positives and negatives uniformly at random: detectron2's ``subsample_labels``, to the bit (the default).

    Args:
        neg_pos_ub: see :class:`ProposalSampler`; Libra R-CNN's released RPN uses 5.
    """

    def __init__(self, neg_pos_ub: float = -1.0):
        super().__init__(neg_pos_ub=neg_pos_ub)


@PROPOSAL_SAMPLER_REGISTRY.register()
class InstanceBalancedSampler(ProposalSampler):
    """Positives spread evenly over the objects (Libra R-CNN sec. 3.1, "Pos Balance"); negatives at random.

    Equals ``subsample_labels`` to the bit as long as the positives do not exceed their quota.

    Args:
        neg_pos_ub: see :class:`ProposalSampler`.
    """

    def __init__(self, neg_pos_ub: float = -1.0):
        super().__init__(positives="instance_balanced", neg_pos_ub=neg_pos_ub)


@PROPOSAL_SAMPLER_REGISTRY.register()
class HardRatioSampler(ProposalSampler):
    """Positives repeated until the asked ratio is met, negatives at random (RGA/PRM appendix A, "hard method").

    An image without positives is filled with negatives, since there is nothing to repeat. Equals
    ``subsample_labels`` to the bit where there are enough positives.
    """

    def __init__(self):
        super().__init__(positives="hard_ratio")
