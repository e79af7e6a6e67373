"""Policies for the positives: ``policy(positive (P,), matched_idxs (N,), num) -> indices``, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from .draw import draw_at_random, draw_preferred

__all__ = ["POSITIVE_POLICIES", "REPEATING_POLICIES", "instance_balanced", "hard_ratio"]


def random(positive: Tensor, matched_idxs: Tensor, num: int) -> Tensor:
    """At most ``num`` positives, uniformly at random."""
    return draw_at_random(positive, num)


def instance_balanced(positive: Tensor, matched_idxs: Tensor, num: int) -> Tensor:
    """At most ``num`` positives, spread over the objects that they match (Libra R-CNN sec. 3.1, last paragraph).

    With g objects that have positives, up to ``round(num / g) + 1`` (half to even) of each are drawn. Too many: a
    random subset of them; too few: filled at random with the remaining positives. With at most ``num`` positives,
    all of them.
    """
    if positive.numel() <= num:
        return draw_at_random(positive, num)
    # In random order, so that sorting by object leaves a random order within each.
    positive = positive.index_select(0, torch.randperm(positive.numel(), device=positive.device))
    matched_gt, by_object = matched_idxs.index_select(0, positive).sort()
    first_of_object = torch.searchsorted(matched_gt, matched_gt)
    place_in_object = torch.arange(positive.numel(), device=positive.device).sub_(first_of_object)
    num_objects = (place_in_object == 0).sum()
    # A true division, unlike num / num_objects, which multiplies by a rounded reciprocal: halves stay halves.
    quota = torch.full_like(num_objects, num).div(num_objects).round_()  # and one more, by <=
    return draw_preferred(positive.index_select(0, by_object), num, place_in_object <= quota)


def hard_ratio(positive: Tensor, matched_idxs: Tensor, num: int) -> Tensor:
    """Exactly ``num`` positives, repeated as often as that takes (RGA/PRM appendix A); none if there are none.

    Every positive appears ``floor(num / P)`` or ``ceil(num / P)`` times; which ones appear once more is random.
    """
    drawn = draw_at_random(positive, num)
    return drawn.repeat(-(-num // max(drawn.numel(), 1)))[:num]


POSITIVE_POLICIES = {"random": random, "instance_balanced": instance_balanced, "hard_ratio": hard_ratio}

#: policies that return an index more than once
REPEATING_POLICIES = frozenset({"hard_ratio"})
