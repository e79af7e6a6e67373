"""Losses inside the ROI heads: each head has its own, loops share one, variances reach whoever removes duplicates."""

import pytest
import roi_heads_tools as h
import torch

from d2_balanced.modeling.cls_losses import GHMC

AXES = {
    **h.AXES,
    "cascade of branches": {**h.CASCADE, **h.AGNOSTIC, **h.BRANCHES},
}
each_axis = pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
LEARNING = {"MODEL__BALANCED__CLS_LOSS": {"NAME": "GHMC"}, "MODEL__BALANCED__BOX_LOSS": {"NAME": "GHMR"}}
KL = {"MODEL__BALANCED__BOX_LOSS": {"NAME": "KLLoss"}}


def predictors(heads):
    """All predictors, each once."""
    stages = range(heads.stages.num_train)
    return list(dict.fromkeys(branch.predictor(k) for branch in heads.branches for k in stages))


@each_axis
def test_every_head_learns_from_its_own_rois_and_a_loop_from_all_loops(axes):
    heads, targets = h.build(h.tiny_cfg(**LEARNING, **axes)), h.targets((4, 7))
    _, views = h.watched_step(heads, h.features(2), h.proposals(targets), targets)
    losses = [predictor.cls_loss for predictor in predictors(heads)]
    assert len({id(loss) for loss in losses}) == len(losses) and all(type(loss) is GHMC for loss in losses)
    for p, branch in enumerate(heads.branches):
        of_stages = {}
        for k, view in enumerate(views):
            rois, passes = of_stages.get(branch.predictor(k), (0, 0))
            of_stages[branch.predictor(k)] = rois + sum(len(image) for image in view.samples[p]), passes + 1
        for predictor, (rois, passes) in of_stages.items():
            counted = predictor.cls_loss.density.sums.pending
            assert counted[:-1].sum() == rois and counted[-1] == passes
            assert predictor.box_loss.density.sums.pending[-1] == passes


@each_axis
def test_predicted_variances_are_beside_the_boxes_at_inference(axes):
    heads, targets = h.build(h.tiny_cfg(**KL, **axes)), h.targets((4, 7))
    losses, gradients, *_ = h.train_step(heads, h.features(2), h.proposals(targets), targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradients[name].isfinite().all() for name, _ in heads.named_parameters())
    heads.eval()
    with torch.no_grad():
        found = heads.box_candidates(h.features(2), h.proposals(targets))
    for boxes, variances in zip(found.boxes, found.variances):
        assert variances.shape == boxes.shape and (variances > 0).all() and len(boxes) > 0


@pytest.mark.parametrize("settings", [{}, {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch"}}])
def test_there_are_no_variances_where_nobody_predicts_them(settings):
    heads, targets = h.build(h.tiny_cfg(**settings)).eval(), h.targets((4, 7))
    with torch.no_grad():
        assert heads.box_candidates(h.features(2), h.proposals(targets)).variances is None


def test_a_classification_loss_may_observe_too():
    heads, targets = h.build(h.tiny_cfg(**h.BRANCHES)), h.targets((4, 7))
    watchers = [h.Watcher() for _ in heads.branches]
    for branch, watcher in zip(heads.branches, watchers):
        branch.predictor(0).cls_loss.observe = watcher.observe
    _, (whole,) = h.watched_step(heads, h.features(2), h.proposals(targets), targets)
    for p, watcher in enumerate(watchers):
        (view,) = watcher.views
        assert view.samples == [whole.samples[p]] and len(view.predictions) == 1


def test_scores_of_sigmoids_are_merged_as_probabilities_or_as_logits():
    """Stages: the mean of the scores. Branches and loops: the scores of the mean logits."""
    sigmoid = {"MODEL__BALANCED__CLS_LOSS": {"NAME": "CrossEntropy", "FORM": "sigmoid"}}
    targets = h.targets((4, 7))
    for axes in (AXES["cascade"], AXES["loops"], AXES["branches"]):
        heads = h.build(h.tiny_cfg(**sigmoid, **axes)).eval()
        stage_logits = []
        for predictor in predictors(heads):
            predictor.register_forward_hook(lambda _, __, out: stage_logits.append(out[0]))
        with torch.no_grad():
            found = torch.cat(list(heads.box_candidates(h.features(2), h.proposals(targets)).scores))
        logits = torch.stack(stage_logits)[..., :-1]
        wanted = logits.sigmoid().mean(0) if axes is AXES["cascade"] else logits.mean(0).sigmoid()
        torch.testing.assert_close(found[:, :-1], wanted)
