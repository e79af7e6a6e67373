"""Seat 2, matching proposals to ground truth: which proposals are positive.

A matcher is called with ``match_quality_matrix (M, N)``, the IoU of M GT boxes with N proposals, and returns
``matched_idxs (N,)`` int64 and ``labels (N,)`` int8 in {-1 ignored, 0 negative, 1 positive}, as detectron2's does.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from torch import Tensor, nn

from ..utils.numbers import require
from .dynamic_statistics import EXCLUDED, StatisticRecorder
from .registry import PROPOSAL_MATCHER_REGISTRY
from .stage_view import StageView

__all__ = ["FixedMatcher", "DynamicMatcher", "fixed_matcher"]


def check_thresholds(owner, thresholds, labels):
    """Lists of ``thresholds`` (increasing, in (0, 1]) and of the ``labels`` of the intervals between them.

    Raises:
        ValueError: names ``owner``, the argument and the value.
    """
    thresholds, labels = [float(t) for t in thresholds], [int(label) for label in labels]
    if not thresholds or not all(0 < t <= 1 for t in thresholds) or thresholds != sorted(thresholds):
        raise ValueError(f"{owner}: thresholds must be increasing IoUs in (0, 1], got {thresholds}")
    if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
        raise ValueError(
            f"{owner}: labels must be {len(thresholds) + 1} values of -1, 0, 1 for {len(thresholds)} thresholds, "
            f"got {labels}"
        )
    return thresholds, labels


@PROPOSAL_MATCHER_REGISTRY.register()
class FixedMatcher(Matcher):
    """detectron2's matcher: the labels follow from fixed IoU thresholds.

    Args:
        thresholds: increasing IoUs in (0, 1].
        labels: one of -1, 0, 1 for each of the ``len(thresholds) + 1`` intervals.
        allow_low_quality_matches: also label the best proposal of every GT positive, however low its IoU.

    Without GT every proposal is matched to index 0 and labelled ``labels[0]``.

    Raises:
        ValueError: for thresholds or labels out of range.
    """

    def __init__(self, thresholds, labels, allow_low_quality_matches=False):
        thresholds, labels = check_thresholds(type(self).__name__, thresholds, labels)
        super().__init__(thresholds, labels, allow_low_quality_matches)


@PROPOSAL_MATCHER_REGISTRY.register()
class DynamicMatcher(nn.Module):
    """Dynamic label assignment: the threshold follows the best IoUs of the proposals (Dynamic R-CNN, section 4.1).

    Positive is a proposal whose highest IoU is at least the threshold (equation 3). Every iteration records the
    (``k_iou`` * B)-th largest IoU of its batch of B images, the last one there is if there are fewer. Every ``period``
    iterations the threshold becomes the mean of the records, at least the initial one, at most ``max_threshold``; it
    takes effect from the next iteration, and is put off if the batch of this one recorded nothing.

    ``scope="image"`` are mmdetection 2.2's rules: the mean over the images of each one's ``k_iou``-th largest, and an
    update after ``period`` batches that recorded. With several processes the records of all are one window. With
    several stages it is the first one's matcher, for the proposals of the RPN; the others keep their own thresholds.

    Args:
        thresholds: one IoU in (0, 1], where the threshold starts; it never falls below (0.4 in the paper).
        labels: the labels below and above it, [0, 1].
        allow_low_quality_matches: as in :class:`FixedMatcher`.
        k_iou: the paper's K_I, per image.
        period: the paper's C, in iterations.
        max_threshold: what the threshold never exceeds. Equal to the initial one: :class:`FixedMatcher`.
        scope: "batch" (the authors' rules) or "image" (mmdetection's).
        count_appended_gt: whether the GT boxes among the proposals count in the statistic.
        empty_images: what an image without GT does to its batch: "skip_batch" or "leave_out".

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self,
        thresholds,
        labels,
        allow_low_quality_matches=False,
        k_iou: int = 75,
        period: int = 100,
        max_threshold: float = 1.0,
        scope: str = "batch",
        count_appended_gt: bool = True,
        empty_images: str = "skip_batch",
    ):
        super().__init__()
        name = type(self).__name__
        thresholds, self.labels = check_thresholds(name, thresholds, labels)
        if len(thresholds) != 1:
            raise ValueError(f"{name}: thresholds must be one IoU, the initial threshold, got {thresholds}")
        self.initial_threshold = thresholds[0]
        self.max_threshold = require(name, "max_threshold", max_threshold, at_least=thresholds[0], at_most=1)
        self.k_iou = require(name, "k_iou", k_iou, at_least=1, integer=True)
        self.count_appended_gt = count_appended_gt
        self.window = StatisticRecorder(name, period, scope, empty_images)
        self.register_buffer("threshold", torch.tensor(self.initial_threshold))
        self.register_buffer("last_statistic", torch.tensor(self.initial_threshold))
        self.register_buffer("num_positives", torch.tensor(0.0), persistent=False)  # of this process, for the log
        self._matcher = FixedMatcher(thresholds, labels, allow_low_quality_matches)

    def forward(self, match_quality_matrix: Tensor) -> Tuple[Tensor, Tensor]:
        """IoUs (M, N) -> matched_idxs (N,), labels (N,) with the threshold in force; see the module docstring."""
        return self.at_threshold()(match_quality_matrix)

    def at_threshold(self) -> FixedMatcher:
        """The matcher that labels at the threshold in force."""
        self._matcher.thresholds[1] = self.threshold
        return self._matcher

    def observe(self, view: StageView) -> None:
        """Remember the IoUs of a forward pass, of all labeled proposals of every image.

        Passes that train nothing (evaluation mode, or gradients switched off) are not measured. ``view`` has one branch.
        """
        if self.training and torch.is_grad_enabled():
            self.window.add_pass([self._ious(image) if image.has("gt_boxes") else None for image in view.labeled[0]])

    def _ious(self, image: Instances) -> Tensor:
        counts = image.gt_classes >= 0
        counts = counts if self.count_appended_gt else counts & ~image.is_gt
        return torch.where(counts, image.matched_ious, EXCLUDED)

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> Dict[str, Tensor]:
        """Record the iteration's statistic, and update the threshold where it is due; a collective call.

        Args:
            iteration: 0-based number of the iteration that ends.

        Returns, as 0-d tensors, the threshold, the last statistic that was recorded, and the number of proposals an
        image of this process that were at or above the threshold in the last iteration that recorded.
        """
        rows = self.window.take_rows()
        statistic = None if rows is None else self.window.scope.iou_statistic(rows, self.k_iou)
        if rows is not None:
            self.num_positives.copy_((rows >= self.threshold).sum() / len(rows))
        recorded, due = self.window.record(statistic, iteration)
        mean = self.window.since_update().nanmean()
        wanted = mean.clamp(self.initial_threshold, self.max_threshold)
        self.threshold.copy_(torch.where(due & ~mean.isnan(), wanted, self.threshold))
        self.window.clear(due)
        self.last_statistic.copy_(torch.where(recorded.isnan(), self.last_statistic, recorded))
        return {
            "dynamic_matcher/threshold": self.threshold,
            "dynamic_matcher/iou_statistic": self.last_statistic,
            "dynamic_matcher/num_positives": self.num_positives,
        }


def fixed_matcher(matcher: Callable) -> Optional[Matcher]:
    """The matcher with fixed thresholds that this one is at the moment; None for one with other rules.

    Such a matcher reads nothing but the best IoU of every proposal, and of every GT, so it can label many images at once.
    """
    if isinstance(matcher, DynamicMatcher) and type(matcher).forward is DynamicMatcher.forward:
        matcher = matcher.at_threshold()
    rules = ("__call__", "set_low_quality_matches_")
    is_fixed = isinstance(matcher, Matcher) and all(getattr(type(matcher), r) is getattr(Matcher, r) for r in rules)
    return matcher if is_fixed else None
