"""Seat 2, matching proposals to ground truth: which proposals are positive.

A matcher is called with ``match_quality_matrix (M, N)``, the IoU of M GT boxes with N proposals, and returns
``matched_idxs (N,)`` int64 and ``labels (N,)`` int8 in {-1 ignored, 0 negative, 1 positive}, as detectron2's does.
"""

from detectron2.modeling.matcher import Matcher

from .registry import PROPOSAL_MATCHER_REGISTRY

__all__ = ["FixedMatcher"]


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
