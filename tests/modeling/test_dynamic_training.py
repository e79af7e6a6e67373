"""Dynamic R-CNN's components inside the ROI heads: hard batches, stages, branches, checkpoints."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

import roi_heads_tools as h
from d2_balanced.modeling.box_losses import DynamicSmoothL1
from d2_balanced.modeling.matcher import DynamicMatcher

THRESHOLD = {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.4]}
DLA = {**THRESHOLD, "MODEL__BALANCED__MATCHER": {"NAME": "DynamicMatcher", "K_IOU": 5, "PERIOD": 2}}
DSL = {"MODEL__BALANCED__BOX_LOSS": {"NAME": "DynamicSmoothL1", "K_ERROR": 2, "PERIOD": 2}}
# The batches have more objects than K_ERROR asks for: with the appended boxes every error statistic would be zero.
PROPOSALS_ONLY = {"NAME": "DynamicSmoothL1", "K_ERROR": 4, "PERIOD": 2, "COUNT_APPENDED_GT": False}
DSL_ON_PROPOSALS = {"MODEL__BALANCED__BOX_LOSS": PROPOSALS_ONLY}
AGNOSTIC = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
CASCADE = {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}, **AGNOSTIC}
RECURSIVE = {"MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages"}, **AGNOSTIC}


def one_proposal(targets):
    box = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    return [Instances(h.IMAGE_SIZE, proposal_boxes=box, objectness_logits=torch.zeros(1)) for _ in targets]


BATCHES = {
    "objects": ((4, 7), h.proposals),
    "crowds": ((40, 40), h.proposals),
    "one image without objects": ((0, 5), h.proposals),
    "no objects": ((0, 0), h.proposals),
    "one proposal": ((2, 1), one_proposal),
    "no proposals": ((3, 2), lambda targets: [p[:0] for p in h.proposals(targets)]),
}


def train(heads, kind, iterations=3):
    """Training iterations on one batch; all losses and gradients must be finite."""
    num_objects, make_proposals = BATCHES[kind]
    targets = h.targets(num_objects)
    for i in range(iterations):
        losses, gradients, *_ = h.train_step(heads, h.features(2), make_proposals(targets), targets, seed=i)
        assert all(loss.isfinite() for loss in losses.values())
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        for module in adaptive(heads):
            module.end_iteration(i)


def adaptive(heads):
    return [module for module in heads.modules() if hasattr(module, "end_iteration")]


@pytest.mark.parametrize("kind", list(BATCHES))
@pytest.mark.parametrize("settings", [DLA, DSL, {**DLA, **DSL}], ids=["DLA", "DSL", "both"])
def test_hard_batches_train(kind, settings):
    heads = h.build(h.tiny_cfg(**settings))
    assert len(adaptive(heads)) == ("MODEL__BALANCED__MATCHER" in settings) + ("MODEL__BALANCED__BOX_LOSS" in settings)
    train(heads, kind)
    for module in adaptive(heads):
        if kind in ("no objects", "one image without objects"):
            assert module.window.records.isnan().all() and module.window.count == 0
        else:
            assert module.window.count == 1  # two of the three iterations were used up by an update


def test_values_adapt_to_the_proposals():
    heads = h.build(h.tiny_cfg(**DLA, **DSL_ON_PROPOSALS))
    train(heads, "objects", iterations=2)
    assert 0.41 < heads.proposal_matcher.threshold <= 1 and heads.proposal_matcher.num_positives > 0
    assert 0 < heads.box_predictor.box_loss.beta < 1


def test_crowds_leave_beta_alone():
    heads = h.build(h.tiny_cfg(**DSL))
    train(heads, "crowds", iterations=4)
    assert heads.box_predictor.box_loss.beta == 1 and heads.box_predictor.box_loss.last_statistic == 0


def test_it_starts_as_plain_detectron2_with_the_same_threshold_and_smooth_l1():
    plain = h.tiny_cfg("StandardROIHeads", **THRESHOLD, MODEL__ROI_BOX_HEAD__SMOOTH_L1_BETA=1.0)
    targets = h.targets((4, 7))
    results = [
        h.train_step(h.build(cfg), h.features(2), h.proposals(targets), targets)
        for cfg in (plain, h.tiny_cfg(**DLA, **DSL))
    ]
    for theirs, ours in zip(results[0][:2], results[1][:2]):  # losses, gradients
        assert set(theirs) == set(ours)
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_plain_checkpoints_load_with_only_the_adaptive_state_missing():
    plain, ours = h.build(h.tiny_cfg("StandardROIHeads")), h.build(h.tiny_cfg(**DLA, **DSL))
    result = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    state = {f".{name}" for name in ("last_statistic", "window.records", "window.count")}
    expected = {"proposal_matcher.threshold", "box_predictor.box_loss.beta"}
    expected |= {owner + name for owner in ("proposal_matcher", "box_predictor.box_loss") for name in state}
    assert set(result.missing_keys) == expected


def test_cascade_stages_have_a_beta_each_in_their_own_units():
    from_high = {"MODEL__BALANCED__BOX_LOSS": {**PROPOSALS_ONLY, "INITIAL_BETA": 50.0}}
    heads = h.build(h.tiny_cfg(**CASCADE, **DLA, **from_high))
    losses = [predictor.box_loss for predictor in heads.box_predictor]
    assert [loss.bbox_reg_weights[0] for loss in losses] == [10.0, 20.0, 30.0]
    train(heads, "objects", iterations=2)
    betas = [float(loss.beta) for loss in losses]
    assert len(set(betas)) == 3 and all(0 < beta < 50 for beta in betas)
    assert [type(matcher).__name__ for matcher in heads.matchers] == ["DynamicMatcher", "FixedMatcher", "FixedMatcher"]


def test_recursive_stages_share_a_beta_that_sees_every_loop():
    heads = h.build(h.tiny_cfg(**RECURSIVE, **DSL_ON_PROPOSALS))
    assert len(adaptive(heads)) == 1
    train(heads, "objects", iterations=2)
    assert 0 < heads.box_predictor.box_loss.beta < 1


def test_branches_share_the_threshold_and_have_a_beta_each():
    heads = h.build(h.tiny_cfg(**h.BRANCHES, **DLA, **DSL))
    kinds = [type(module) for module in adaptive(heads)]
    assert kinds.count(DynamicMatcher) == 1 and kinds.count(DynamicSmoothL1) == 2
    targets = h.targets((4, 7))
    h.train_step(heads, h.features(2), h.proposals(targets), targets)
    assert [len(module.window.passes) for module in adaptive(heads)] == [1, 1, 1]  # not one a branch


def test_inference_measures_nothing_and_is_the_same_graph():
    heads, plain = h.build(h.tiny_cfg(**DLA, **DSL)), h.build(h.tiny_cfg("StandardROIHeads"))
    plain.load_state_dict(heads.state_dict(), strict=False)
    targets = h.targets((4, 7))
    for ours, theirs in zip(*(h.detect(x, h.features(2), h.proposals(targets)) for x in (heads, plain))):
        assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor) and torch.equal(ours.scores, theirs.scores)
    assert all(not module.window.passes for module in adaptive(heads))
