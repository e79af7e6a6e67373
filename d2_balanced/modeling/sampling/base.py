"""The frame that every sampler shares: split the minibatch into positives and negatives, draw each with its policy.

    N: proposals (or anchors) of one image      P: its positives      Q: its negatives
"""

from __future__ import annotations

from typing import Tuple

import torch
from detectron2.layers import nonzero_tuple
from torch import Tensor

__all__ = ["ProposalSampler", "draw_at_random"]


def draw_at_random(candidates: Tensor, num: int) -> Tensor:
    """A uniformly random subset of ``num`` of the ``candidates`` (P,), in random order; all of them if P <= num."""
    return candidates[torch.randperm(candidates.numel(), device=candidates.device)[:num]]


class ProposalSampler:
    """Draws a minibatch of one image's proposals: a policy for the positives and a policy for the negatives.

    With the two policies of this class the result, and the use of torch's generator, are those of detectron2's
    ``subsample_labels``. A sampler overrides one policy or both; it holds settings only, no state between calls.

    Args:
        neg_pos_ub: at most so many negatives for each sampled positive (images without positives count as one
            positive); -1: no bound, negatives fill the minibatch.
    """

    #: whether the positive indices may repeat; an RPN, which marks anchors in a label vector, cannot use repeats
    repeats_positives = False

    def __init__(self, *, neg_pos_ub: float = -1.0):
        if not (neg_pos_ub == -1 or neg_pos_ub > 0):
            raise ValueError(
                f"{type(self).__name__}: neg_pos_ub must be positive, or -1 for no bound; got {neg_pos_ub!r}"
            )
        self.neg_pos_ub = neg_pos_ub

    def __call__(
        self,
        labels: Tensor,
        ious: Tensor,
        matched_idxs: Tensor,
        num_samples: int,
        positive_fraction: float,
        bg_label: int,
    ) -> Tuple[Tensor, Tensor]:
        """
        Args:
            labels: (N,) class index, ``bg_label`` for background, -1 for ignored (never sampled).
            ious: (N,) highest IoU with any ground-truth box of the image.
            matched_idxs: (N,) index of the matched ground-truth box; read for positives only.
            num_samples: size of the minibatch.
            positive_fraction: at most ``int(num_samples * positive_fraction)`` are positives.
            bg_label: label of the background.

        Returns:
            Indices of the sampled positives and of the sampled negatives, both 1-d int64; empty where there is no
            candidate. Negatives fill what positives leave free, as far as there are negatives.
        """
        positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
        negative = nonzero_tuple(labels == bg_label)[0]
        pos_idx = self.draw_positives(positive, matched_idxs, int(num_samples * positive_fraction))
        num_neg = min(self._negative_quota(num_samples, pos_idx.numel()), negative.numel())
        return pos_idx, self.draw_negatives(negative, ious, num_neg)

    def draw_positives(self, positive: Tensor, matched_idxs: Tensor, num: int) -> Tensor:
        """At most ``num`` of the indices ``positive`` (P,)."""
        return draw_at_random(positive, num)

    def draw_negatives(self, negative: Tensor, ious: Tensor, num: int) -> Tensor:
        """Exactly ``num`` <= Q of the indices ``negative`` (Q,)."""
        return draw_at_random(negative, num)

    def _negative_quota(self, num_samples: int, num_pos: int) -> int:
        quota = num_samples - num_pos
        if self.neg_pos_ub == -1:
            return quota
        return min(quota, int(self.neg_pos_ub * max(num_pos, 1)))

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"
