"""The frame that every sampler shares: split the minibatch into positives and negatives, draw each with its policy.

    N: proposals (or anchors) of one image      P: its positives      Q: its negatives
"""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

import torch
from torch import Tensor

from d2_balanced.modeling.image_rows import selected_by_image

from ...utils.numbers import require
from .draw import draw_at_random
from .positives import POSITIVE_POLICIES, REPEATING_POLICIES

__all__ = ["ProposalSampler", "sample_images"]


class ProposalSampler:
    """Draws a minibatch of one image's proposals: a policy for the positives and a policy for the negatives.

    With the default policies the result, and the use of torch's generator, are those of detectron2's
    ``subsample_labels``. A sampler holds settings only, no state between calls. Write your own by overriding
    ``draw_positives`` or ``draw_negatives``; ``__call__`` moves nothing to the host but the two candidate counts,
    as ``subsample_labels`` does.

    Args:
        positives: how positives are drawn: ``random``, ``instance_balanced`` (Libra R-CNN sec. 3.1) or
            ``hard_ratio`` (RGA/PRM appendix A: repeated until the ratio is met).
        neg_pos_ub: at most ``int(neg_pos_ub * sampled positives)`` negatives, an image without positives counting
            as one positive; -1: no bound, negatives fill the minibatch.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, positives: str = "random", neg_pos_ub: float = -1.0):
        self._check("positives", positives, f"one of {sorted(POSITIVE_POLICIES)}", positives in POSITIVE_POLICIES)
        self.positives = positives
        self.neg_pos_ub = require(self, "neg_pos_ub", neg_pos_ub, above=0, also=(-1,))

    @property
    def repeats_positives(self) -> bool:
        """Whether a positive may be drawn more than once (an RPN, which marks anchors, cannot express that)."""
        return self.positives in REPEATING_POLICIES

    def __call__(
        self,
        labels: Tensor,
        ious: Tensor,
        matched_idxs: Tensor,
        num_samples: int,
        positive_fraction: float,
        bg_label: int,
    ) -> Tuple[Tensor, Tensor]:
        """Indices of the sampled positives and of the sampled negatives, both 1-d int64; empty without candidates.

        Args:
            labels: (N,) class index, ``bg_label`` for background, -1 for ignored (never sampled).
            ious: (N,) highest IoU with any ground-truth box of the image.
            matched_idxs: (N,) index of the matched ground-truth box; read for positives only.
            num_samples: size of the minibatch; fewer come back where there are not enough candidates.
            positive_fraction: at most ``int(num_samples * positive_fraction)`` are positives.
            bg_label: label of the background.
        """
        positive, negative = (mask.nonzero().squeeze(1) for mask in _candidates(labels, bg_label))
        return self._draw(positive, negative, ious, matched_idxs, num_samples, positive_fraction)

    def sample_batch(
        self,
        labels: Sequence[Tensor],
        ious: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
        num_samples: int,
        positive_fraction: float,
        bg_label: int,
    ) -> List[Tuple[Tensor, Tensor]]:
        """What a call for every image, one after the other, would return, with the same random draws.

        The first three arguments have one tensor an image. The host waits for the device once, whatever the number of
        images, for the numbers of candidates.
        """
        if type(self).__call__ is not ProposalSampler.__call__:  # a sampler with rules of its own for an image
            rest = (num_samples, positive_fraction, bg_label)
            return [self(*image, *rest) for image in zip(labels, ious, matched_idxs)]
        masks = torch.cat(_candidates(torch.cat(list(labels)), bg_label))
        rows = selected_by_image(masks, [len(image) for image in labels] * 2)
        images = zip(rows[: len(labels)], rows[len(labels) :], ious, matched_idxs)
        return [self._draw(*image, num_samples, positive_fraction) for image in images]

    def _draw(self, positive, negative, ious, matched_idxs, num_samples, positive_fraction):
        pos_idx = self.draw_positives(positive, matched_idxs, int(num_samples * positive_fraction))
        num_neg = self._negative_quota(num_samples, pos_idx.numel())
        return pos_idx, self.draw_negatives(negative, ious, min(num_neg, negative.numel()))

    def draw_positives(self, positive: Tensor, matched_idxs: Tensor, num: int) -> Tensor:
        """At most ``num`` of the indices ``positive`` (P,)."""
        return POSITIVE_POLICIES[self.positives](positive, matched_idxs, num)

    def draw_negatives(self, negative: Tensor, ious: Tensor, num: int) -> Tensor:
        """Exactly ``num`` <= Q of the indices ``negative`` (Q,)."""
        return draw_at_random(negative, num)

    def _negative_quota(self, num_samples: int, num_pos: int) -> int:
        quota = num_samples - num_pos
        return quota if self.neg_pos_ub == -1 else min(quota, int(self.neg_pos_ub * max(num_pos, 1)))

    def _check(self, argument: str, value, allowed: str, ok: bool) -> None:
        if not ok:
            raise ValueError(f"{type(self).__name__}: {argument} must be {allowed}; got {value!r}")

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def sample_images(sampler: Callable, labels: Sequence[Tensor], ious, matched_idxs, *settings) -> List[Tuple[Tensor, Tensor]]:
    """Positives and negatives of every image, in all images at once where the sampler has a ``sample_batch``.

    Arguments are those of :meth:`ProposalSampler.sample_batch`; ``sampler`` is any callable like a ``ProposalSampler``.
    """
    if hasattr(sampler, "sample_batch"):
        return sampler.sample_batch(labels, ious, matched_idxs, *settings)
    return [sampler(*image, *settings) for image in zip(labels, ious, matched_idxs)]


def _candidates(labels: Tensor, bg_label: int) -> Tuple[Tensor, Tensor]:
    """Masks of the positives and of the negatives."""
    is_negative = labels == bg_label
    return (labels != -1) & ~is_negative, is_negative
