"""Matchers: labels at fixed and at moving thresholds, neutral settings, and settings that are refused."""

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_balanced.config import ConfigError
from d2_balanced.modeling.spec import build_component
from d2_balanced.modeling.matcher import DynamicMatcher, FixedMatcher
from d2_balanced.modeling.registry import PROPOSAL_MATCHER_REGISTRY


def ious(seed, num_gt, num_proposals):
    """A match quality matrix with ties and IoUs that lie on the thresholds."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 11, (num_gt, num_proposals), generator=generator) / 10


MATRICES = given(st.integers(0, 2**31 - 1), st.integers(0, 4), st.integers(0, 12), st.booleans())


@settings(max_examples=60, deadline=None)
@MATRICES
def test_fixed_matcher_is_detectron2s(seed, num_gt, num_proposals, low_quality):
    matrix, arguments = ious(seed, num_gt, num_proposals), ([0.3, 0.5], [0, -1, 1], low_quality)
    for ours, theirs in zip(FixedMatcher(*arguments)(matrix), Matcher(*arguments)(matrix)):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


@settings(max_examples=60, deadline=None)
@MATRICES
def test_dynamic_matcher_labels_as_a_fixed_one_at_its_threshold(seed, num_gt, num_proposals, low_quality):
    matrix = ious(seed, num_gt, num_proposals)
    matcher = DynamicMatcher([0.4], [0, 1], low_quality)
    for threshold in (0.4, 0.7):
        matcher.threshold.fill_(threshold)
        for ours, theirs in zip(matcher(matrix), Matcher([threshold], [0, 1], low_quality)(matrix)):
            assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_threshold_is_an_inclusive_bound():
    matcher = DynamicMatcher([0.4], [0, 1])
    matcher.threshold.fill_(0.625)
    assert matcher(torch.tensor([[0.624, 0.625, 0.626]]))[1].tolist() == [0, 1, 1]


def test_threshold_follows_the_module():
    matcher = DynamicMatcher([0.4], [0, 1])
    matcher(torch.tensor([[0.5]]))
    matcher.load_state_dict({**matcher.state_dict(), "threshold": torch.tensor(0.75)})
    assert matcher(torch.tensor([[0.74, 0.75]]))[1].tolist() == [0, 1]
    assert matcher.to(torch.float64)(torch.tensor([[0.74, 0.75]], dtype=torch.float64))[1].tolist() == [0, 1]
    assert [name for name, _ in matcher.named_parameters()] == []


@pytest.mark.parametrize("name", ["FixedMatcher", "DynamicMatcher"])
def test_registered_and_built_from_a_spec_node(name):
    context = {"thresholds": [0.4], "labels": [0, 1], "allow_low_quality_matches": False}
    matcher = build_component(PROPOSAL_MATCHER_REGISTRY, {"NAME": name}, "MODEL.BALANCED.MATCHER", **context)
    assert type(matcher).__name__ == name and matcher.labels == [0, 1]


def test_bad_settings_name_the_key():
    node = {"NAME": "DynamicMatcher", "K_IOU": 0}
    with pytest.raises(ConfigError, match="MODEL.BALANCED.MATCHER: DynamicMatcher: k_iou must be 1 or more, got 0"):
        build_component(PROPOSAL_MATCHER_REGISTRY, node, "MODEL.BALANCED.MATCHER", thresholds=[0.4], labels=[0, 1])


@pytest.mark.parametrize("cls", [FixedMatcher, DynamicMatcher])
@pytest.mark.parametrize(
    "thresholds, labels, message",
    [
        ([], [1], r"thresholds must be increasing IoUs in \(0, 1\], got \[\]"),
        ([0.0], [0, 1], r"thresholds must be increasing IoUs in \(0, 1\], got \[0.0\]"),
        ([1.5], [0, 1], r"thresholds must be increasing IoUs in \(0, 1\], got \[1.5\]"),
        ([0.5, 0.3], [0, -1, 1], r"thresholds must be increasing IoUs"),
        ([0.5], [0, 1, 1], r"labels must be 2 values of -1, 0, 1 for 1 thresholds, got \[0, 1, 1\]"),
        ([0.5], [0, 2], r"labels must be 2 values of -1, 0, 1"),
    ],
)
def test_bad_thresholds_and_labels(cls, thresholds, labels, message):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {message}"):
        cls(thresholds, labels)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"thresholds": [0.3, 0.5], "labels": [0, -1, 1]}, "thresholds must be one IoU, the initial threshold"),
        ({"k_iou": 0}, "k_iou must be 1 or more, got 0"),
        ({"period": 0}, "period must be from 1 to 1000000, got 0"),
        ({"max_threshold": 0.3}, r"max_threshold must be from 0.4 to 1, got 0.3"),
        ({"max_threshold": 1.2}, r"max_threshold must be from 0.4 to 1, got 1.2"),
        ({"scope": "epoch"}, "scope must be one of batch, image, got 'epoch'"),
        ({"empty_images": "ignore"}, "empty_images must be one of skip_batch, leave_out, got 'ignore'"),
    ],
)
def test_bad_dynamic_settings(settings, message):
    with pytest.raises(ValueError, match=f"DynamicMatcher: {message}"):
        DynamicMatcher(**{"thresholds": [0.4], "labels": [0, 1], **settings})
