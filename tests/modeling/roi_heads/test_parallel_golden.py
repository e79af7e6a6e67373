"""Parallel R-CNN modules (RGA + PRM, sec. 3.2) against golden file 9: minibatches and merged outputs."""

import json

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from paths import shared_file

import roi_heads_tools as h
from d2_balanced.modeling.roi_heads import BoxBranch
from d2_balanced.modeling.roi_heads.labeling import sample_proposals
from d2_balanced.modeling.sampling import RandomSampler
from d2_balanced.modeling.scoring import merge_branches

NUM_CLASSES = 3


def golden(name):
    with open(shared_file("golden", "prm_rga.json")) as file:
        return json.load(file)[name]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", range(5))
def test_ensemble(case):
    """Logits are averaged before the softmax; boxes are those of the highest positive fraction, the first of equals."""
    cases = golden("prm_ensemble")
    assert len(cases) == 5
    case = cases[case]
    for (positive, negative), fraction in zip(case["ratios_pos_neg"], case["positive_fraction"]):
        assert fraction == pytest.approx(positive / (positive + negative), abs=1e-12)
    branches = [{"POSITIVE_FRACTION": fraction} for fraction in case["positive_fraction"]]
    heads = h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches))
    assert heads.main_branch == case["expected_box_module"]
    predictions = list(zip(double(case["logits"]), double(case["deltas"])))
    logits, deltas = merge_branches(predictions, heads.main_branch)
    torch.testing.assert_close(logits, double(case["expected_mean_logits"]), atol=1e-9, rtol=0)
    torch.testing.assert_close(logits.softmax(dim=1), double(case["expected_scores"]), atol=1e-9, rtol=0)
    torch.testing.assert_close(deltas, double(case["expected_deltas"]), atol=1e-9, rtol=0)
    if len(predictions) > 1:
        wrong = double(case["wrong_mean_of_softmax"])
        assert (logits.softmax(dim=1) - wrong).abs().max() > 1e-6


def labeled_image(available_pos, available_neg):
    num = available_pos + available_neg
    image = Instances((10, 10), proposal_boxes=Boxes(torch.zeros(num, 4)))
    image.gt_classes = torch.tensor([1] * available_pos + [NUM_CLASSES] * available_neg)
    image.matched_idxs = torch.zeros(num, dtype=torch.int64)
    image.matched_ious = torch.zeros(num)
    return image


def test_soft_sampling():
    """Every row: a ratio p:n is a positive fraction p / (p + n); missing positives are replaced by negatives."""
    rows = golden("prm_soft_sampling")["rows"]
    assert len({tuple(row[:2]) for row in rows}) == 4
    for p, n, batch, available_pos, available_neg, quota, sampled_pos, sampled_neg in rows:
        branch = BoxBranch(
            box_head=torch.nn.Identity(),
            box_predictor=torch.nn.Identity(),
            positive_fraction=p / (p + n),
            batch_size_per_image=batch,
            sampler=RandomSampler(),
        )
        assert int(batch * branch.positive_fraction) == quota
        image = labeled_image(available_pos, available_neg)
        with EventStorage() as storage:
            (samples,) = sample_proposals([image], [image[:0]], branch, NUM_CLASSES)
        found = int((samples.gt_classes < NUM_CLASSES).sum())
        assert (found, len(samples) - found) == (sampled_pos, sampled_neg)
        assert storage.latest()["roi_head/num_fg_samples"][0] == sampled_pos


def test_branches_share_what_the_first_stage_matched():
    """The minibatches come from the same labeled proposals, which are matched once."""
    branches = [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]
    heads = h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches))
    calls, matcher = [], heads.matchers[0]
    heads.matchers[0] = lambda iou: calls.append(iou.shape) or matcher(iou)
    pooled = []
    heads.box_pooler.register_forward_hook(lambda *call: pooled.append(call))
    targets = h.targets((4, 7))
    h.train_step(heads, h.features(2), h.proposals(targets), targets)
    assert len(calls) == 2 and len(pooled) == 1  # once an image; one call of the pooler for both branches


@pytest.mark.parametrize(
    "branches, words",
    [
        ([{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.0}], ["positive_fraction", "above 0 and at most 1", "0.0"]),
        ([{"POSITIVE_FRACTION": 1.5}], ["positive_fraction", "above 0 and at most 1", "1.5"]),
        ([{"BATCH_SIZE_PER_IMAGE": 0}], ["batch_size_per_image", "1 or more", "0"]),
    ],
)
def test_impossible_ratios(branches, words):
    with pytest.raises(ValueError) as error:
        h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_no_branch_at_inference_is_refused():
    """An index that no branch has; an empty list means all branches, which is never none."""
    branches = [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]
    heads = h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches, MODEL__BALANCED__TEST_BRANCHES=[]))
    assert heads.test_branches == [0, 1]
    with pytest.raises(ValueError, match=r"\[-1\].*TEST_BRANCHES.*0 to 1"):
        h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches, MODEL__BALANCED__TEST_BRANCHES=[-1]))
    with pytest.raises(ValueError, match="merge_branches"):
        merge_branches([], 0)


def test_hard_ratio_in_a_branch():
    """Appendix A: a branch whose sampler repeats positives has exactly its share of them."""
    branches = [{"POSITIVE_FRACTION": 0.5, "SAMPLER": {"NAME": "HardRatioSampler"}}, {"POSITIVE_FRACTION": 0.5}]
    heads = h.build(h.tiny_cfg(MODEL__BALANCED__BRANCHES=branches))
    targets = h.targets((1, 2))
    logged = h.train_step(heads, h.features(2), h.proposals(targets, num=8), targets)[3]
    assert logged["branch0/roi_head/num_fg_samples"] == 16
    assert logged["branch1/roi_head/num_fg_samples"] < 16
