"""Sample weights inside the ROI heads: neutral ones change no bit, on any axis; others reach losses and samples."""

import functools
import os

import pytest
import roi_heads_tools as h
import torch
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from paths import ROOT

from d2_balanced.modeling.roi_heads.check_axes import check_axes
from d2_balanced.modeling.sample_weights import OHEM, RoIWeights, SampleWeights
from d2_balanced.utils.errors import Refusal

KEY = "MODEL__BALANCED__SAMPLE_WEIGHTS"
ALIKE = {"MODEL__BALANCED__BRANCHES": [{"POSITIVE_FRACTION": 0.25}, {"POSITIVE_FRACTION": 0.25}]}
AXES = {
    "one stage": {},
    "agnostic": h.AGNOSTIC,
    "cascade": {**h.CASCADE, **h.AGNOSTIC},
    "loops": {**h.RECURSIVE, **h.AGNOSTIC},
    "branches": ALIKE,
    "cascade of branches": {**h.CASCADE, **h.AGNOSTIC, **ALIKE},
    "IoU branch": h.IOU_BRANCH,
    "masks": {"MODEL__MASK_ON": True},
    "losses of others": {
        "MODEL__BALANCED__CLS_LOSS": {"NAME": "EQLv2"},
        "MODEL__BALANCED__BOX_LOSS": {"NAME": "KLLoss"},
    },
    "boxes": {"MODEL__BALANCED__CLS_LOSS": {"NAME": "QualityFocal"}, "MODEL__BALANCED__BOX_LOSS": {"NAME": "EIoU"}},
}
NEUTRAL = {
    "OHEM": {"NAME": "OHEM", "CANDIDATES": "sampled", "NMS_THRESH": 1.0, "LOSSES": "cls"},
    "PISA": {"NAME": "PISA", "POSITIVE_GAMMA": 0.0, "NEGATIVE_GAMMA": 0.0, "CARL_WEIGHT": 0.0, "IOUS": "proposal"},
    "IoUBalanced": {"NAME": "IoUBalanced", "ETA": 0.0, "LAM": 0.0, "IOUS": "proposal"},
    "ClassBalancedRoIs": {"NAME": "ClassBalancedRoIs", "POWER": 0.0, "BOXES": False},
    "with boxes": {"NAME": "ClassBalancedRoIs", "POWER": 0.0},
    "SamplingFree": {
        "NAME": "SamplingFree",
        "GUIDE": 0.0,
        "PRIOR": 0.0,
        "ALL_PROPOSALS": False,
        "DIVIDE_BY": "rois",
    },
}
ACTIVE = {
    "OHEM": {"NAME": "OHEM"},
    "OHEM of samples": {"NAME": "OHEM", "CANDIDATES": "sampled", "NUM_PER_IMAGE": 5, "FRACTION": True},
    "OHEM of the batch": {"NAME": "OHEM", "PER": "batch", "LOSSES": "cls"},
    "PISA": {"NAME": "PISA"},
    "IoUBalanced": {"NAME": "IoUBalanced"},
    "ClassBalancedRoIs": {"NAME": "ClassBalancedRoIs"},
    "SamplingFree": {"NAME": "SamplingFree"},
}
READS_BOXES = {"with boxes", "SamplingFree"}
OBJECTS = [(4, 7), (0, 5), (0, 0)]


def step(objects, settings, axes, num=60):
    targets = h.targets(objects, masks="MODEL__MASK_ON" in axes)
    heads = h.build(h.tiny_cfg(**axes, **({KEY: settings} if settings else {})))
    return heads, h.watched_step(heads, h.features(len(objects)), h.proposals(targets, num), targets)


@functools.lru_cache(maxsize=None)
def plain_step(objects, axes):
    """Losses, gradients, samples, log and next random number without sample weights."""
    return step(objects, None, AXES[axes])[1][0]


@pytest.mark.parametrize(
    "name, axes", [(n, a) for a in AXES for n in NEUTRAL if a != "IoU branch" or n not in READS_BOXES]
)
def test_neutral_weights_change_no_bit(name, axes):
    for objects in OBJECTS:
        plain, (_, (ours, _)) = plain_step(objects, axes), step(objects, NEUTRAL[name], AXES[axes])
        losses, gradients, _, logged, after = ours
        assert losses.keys() == plain[0].keys() and gradients.keys() == plain[1].keys()
        for key, value in [*plain[0].items(), *plain[1].items()]:
            assert torch.equal(value, {**losses, **gradients}[key]), key
        assert {n: v for n, v in logged.items() if "candidates" not in n} == plain[3]
        assert torch.equal(after, plain[4])


@pytest.mark.parametrize("axes", [axes for axes in AXES if axes not in ("IoU branch", "agnostic")])
@pytest.mark.parametrize("name", ACTIVE)
def test_weights_work_on_every_axis_and_batch(name, axes):
    """Objects in all images, in one, in none; one proposal: finite, with gradients for all that trains."""
    found = {}
    for objects, num in (((4, 7), 60), ((0, 5), 60), ((0, 0), 60), ((1,), 1)):
        heads, ((losses, gradients, *_), _) = step(objects, ACTIVE[name], AXES[axes], num)
        assert all(loss.isfinite() for loss in losses.values()), losses
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert all(n in gradients for n, p in heads.named_parameters() if p.requires_grad)
        found[objects] = gradients
    plain = plain_step((4, 7), axes)[1]
    assert plain.keys() == found[4, 7].keys() and not torch.equal(plain["p2"], found[4, 7]["p2"])


# --- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [AXES["one stage"], AXES["loops"], AXES["branches"]], ids=["one", "loops", "branches"])
def test_ohem_trains_on_the_hardest_of_all_proposals(axes):
    """Of all labeled proposals, by the heads' own losses; in every stage and branch, in as many images."""
    heads, ((_, _, _, logged, _), views) = step((4, 7), {"NAME": "OHEM", "NMS_THRESH": 1.0}, axes)
    assert len(views) == heads.stages.num_train
    for view in views:
        for p, branch in enumerate(heads.branches):
            with torch.no_grad():
                boxes = [image.proposal_boxes for image in view.labeled[p]]
                pooled = heads.box_pooler(list(h.features(2).values()), boxes)
                every = branch.predictor(view.stage).roi_losses(branch.predict(pooled, view.stage), view.labeled[p])
            sizes = [len(image) for image in view.labeled[p]]
            for image, chosen, hardness in zip(view.labeled[p], view.samples[p], (every.cls + every.box).split(sizes)):
                hardest = hardness.sort(descending=True)[1][:32]
                found = sorted(map(tuple, chosen.proposal_boxes.tensor.tolist()))
                assert found == sorted(map(tuple, image.proposal_boxes.tensor[hardest].tolist()))
    names = {name for name in logged if "num_fg_samples" in name}
    assert len(names) == 2 * len(views) * len(heads.branches)
    assert 2 * sum("candidates" in name for name in names) == len(names)


def test_a_cascade_chooses_where_it_draws():
    _, (_, views) = step((4, 7), {"NAME": "OHEM", "NUM_PER_IMAGE": 9, "NMS_THRESH": 1.0}, AXES["cascade"])
    assert [[len(image) for image in view.samples[0]] for view in views] == [[9, 9]] * 3
    settings = {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages", "RESAMPLE": True, "KEEP_APPENDED_GT": True}}
    _, (_, views) = step((4, 7), {"NAME": "OHEM", "NUM_PER_IMAGE": 9, "NMS_THRESH": 1.0}, {**settings, **h.AGNOSTIC})
    assert [len(view.samples[0][0]) for view in views] == [9, 9, 9]
    assert [len(view.labeled[0][0]) for view in views[1:]] == [13, 13]  # what was chosen, and four objects


def test_masks_train_on_what_is_chosen():
    _, ((losses, _, samples, _, _), (view,)) = step((4, 7), {"NAME": "OHEM"}, AXES["masks"])
    assert samples is view.samples[0] and losses["loss_mask"] > 0


def test_without_sampling_all_proposals_are_in_the_losses():
    band = {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.3, 0.5], "MODEL__ROI_HEADS__IOU_LABELS": [0, -1, 1]}
    for axes in ({}, band):
        _, (_, (view,)) = step((4, 7), {"NAME": "SamplingFree"}, axes)
        for image, samples in zip(view.labeled[0], view.samples[0]):
            kept = image.gt_classes >= 0
            assert torch.equal(samples.proposal_boxes.tensor, image.proposal_boxes.tensor[kept])
            assert kept.all() == (axes is not band)


def test_ignored_proposals_take_no_part():
    """Everything is ignored: nothing to choose from, losses of 0."""
    everything = {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.3, 0.5], "MODEL__ROI_HEADS__IOU_LABELS": [-1, -1, -1]}
    for name in ("OHEM", "PISA", "SamplingFree", "OHEM of samples"):
        _, ((losses, *_), (view,)) = step((4, 7), ACTIVE[name], everything)
        assert [len(image) for image in view.samples[0]] == [0, 0]
        assert {key: loss.item() for key, loss in losses.items()} == {"loss_cls": 0.0, "loss_box_reg": 0.0}


# --- the seat --------------------------------------------------------------------------------------------------------


class Doubled(SampleWeights):
    reads_boxes = False

    def __init__(self):
        super().__init__()
        self.seen, self.observed = [], []

    def observe(self, view):
        self.observed.append(view)

    def weigh(self, view, losses):
        self.seen.append((view, losses))
        return RoIWeights(cls=torch.full_like(losses.cls, 2.0))


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_a_component_sees_every_stage_and_branch_with_the_losses(axes):
    heads, targets = h.build(h.tiny_cfg(**axes)), h.targets((4, 7), masks="MODEL__MASK_ON" in axes)
    args = h.features(2), h.proposals(targets), targets
    plain = h.train_step(heads, *args)[0]
    heads.sample_weights = Doubled()
    (losses, *_), views = h.watched_step(heads, *args)
    for name in plain:
        factor = 2 if name.startswith("loss_cls") else 1
        torch.testing.assert_close(losses[name], factor * plain[name], rtol=1e-5, atol=1e-6, msg=name)
    branches = range(len(heads.branches))
    assert len(heads.sample_weights.seen) == len(views) * len(branches)
    assert [view.samples for view in heads.sample_weights.observed] == [v.samples for v, _ in heads.sample_weights.seen]
    for (view, of_rois), (whole, p) in zip(heads.sample_weights.seen, [(v, p) for v in views for p in branches]):
        assert view.samples == [whole.samples[p]] and view.stage == whole.stage
        assert len(of_rois.cls) == len(of_rois.box) == sum(len(image) for image in whole.samples[p])
        assert (of_rois.box == 0).all() == (axes is h.IOU_BRANCH)


def _sampler(name, **arguments):
    return {"MODEL__BALANCED__SAMPLER": {"NAME": name, **arguments}}


@pytest.mark.parametrize(
    "settings, axes, message",
    [
        ({"NAME": "OHEM"}, _sampler("IoUBalancedSampler"), "sampler=IoUBalancedSampler.*'sampled'"),
        ({"NAME": "OHEM"}, _sampler("RandomSampler", NEG_POS_UB=3.0), "sampler=Random"),
        ({"NAME": "SamplingFree"}, h.BRANCHES, r"branches with the shares of positives \[0.1, 0.5\]"),
        ({"NAME": "OHEM"}, h.BRANCHES, "shares of positives.*set fraction to True"),
        ({"NAME": "OHEM"}, h.IOU_BRANCH, "iou_branch=IoUBranch.*set losses to 'cls'"),
        ({"NAME": "PISA"}, h.IOU_BRANCH, "iou_branch=IoUBranch.*set ious to 'proposal' and carl_weight to 0"),
        ({"NAME": "SamplingFree"}, h.IOU_BRANCH, "iou_branch=IoUBranch"),
    ],
)
def test_what_does_not_go_together(settings, axes, message):
    with pytest.raises(Refusal, match=f"sample_weights={settings['NAME']}.*{message}"):
        h.build(h.tiny_cfg(**axes, **{KEY: settings}))


class Boxes(SampleWeights):
    """Of a user who has not thought of IoU branches."""

    def weigh(self, view, losses):
        return RoIWeights(box=torch.full_like(losses.cls, 2.0))


class Hardest(SampleWeights):
    def choose(self, view, losses, num_per_image, positive_fraction):
        raise AssertionError("not called")


@pytest.mark.parametrize("make", [Boxes, Hardest])
def test_what_may_read_boxes_is_refused_beside_an_iou_branch(make):
    """Its weights of the boxes, which the branch does not take, would do nothing."""
    heads = h.build(h.tiny_cfg(**h.IOU_BRANCH))
    heads.sample_weights = make()
    told = f"sample_weights={make.__name__}.*IOU_BRANCH.*does not say.*reads_boxes to False"
    with pytest.raises(Refusal, match=told):
        check_axes(heads)
    heads.sample_weights.reads_boxes = False
    check_axes(heads)
    heads = h.build(h.tiny_cfg())
    heads.sample_weights = make()
    check_axes(heads)


def test_box_weights_against_ones_own_word_are_no_silent_ones():
    targets = h.targets((4, 7))
    heads = h.build(h.tiny_cfg(**h.IOU_BRANCH))
    heads.sample_weights = Boxes()
    with pytest.raises(Refusal, match="RoIWeights.box.*SAMPLE_WEIGHTS.*IOU_BRANCH.*ignored; return None"):
        h.train_step(heads, h.features(2), h.proposals(targets), targets)
    losses = {}
    for weights in (None, Boxes()):
        heads = h.build(h.tiny_cfg())
        heads.sample_weights = weights or heads.sample_weights
        losses[weights is None] = h.train_step(heads, h.features(2), h.proposals(targets), targets)[0]
    torch.testing.assert_close(losses[False]["loss_box_reg"], 2 * losses[True]["loss_box_reg"])
    torch.testing.assert_close(losses[False]["loss_cls"], losses[True]["loss_cls"])


def test_what_the_refusals_say_works():
    for settings, axes in [
        ({"NAME": "OHEM", "CANDIDATES": "sampled"}, {"MODEL__BALANCED__SAMPLER": {"NAME": "IoUBalancedSampler"}}),
        ({"NAME": "OHEM", "FRACTION": True}, h.BRANCHES),
        ({"NAME": "OHEM", "LOSSES": "cls"}, h.IOU_BRANCH),
        ({"NAME": "PISA", "IOUS": "proposal", "CARL_WEIGHT": 0.0}, h.IOU_BRANCH),
        ({"NAME": "IoUBalanced", "IOUS": "proposal", "LAM": 0.0}, h.IOU_BRANCH),
        ({"NAME": "ClassBalancedRoIs", "BOXES": False}, h.IOU_BRANCH),
    ]:
        losses = step((4, 7), settings, axes)[1][0][0]
        assert all(loss.isfinite() for loss in losses.values())


def test_predictors_that_do_not_tell_their_losses_are_refused():
    heads = h.build(h.tiny_cfg())
    heads.sample_weights = Doubled()
    heads.branches[0].box_predictor = FastRCNNOutputLayers(h.tiny_cfg(), heads.box_head.output_shape)
    with pytest.raises(Refusal, match="box_predictor=FastRCNNOutputLayers"):
        check_axes(heads)


@pytest.mark.parametrize("name", [name for name in ACTIVE if not name.startswith("OHEM")])
def test_weighing_does_not_wait_for_the_device(name, monkeypatch):
    """NMS, which PISA's clusters need once, aside."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, "benchmarks"))
    from host_work import count

    heads, (_, (view,)) = step((4, 7), ACTIVE[name], {})
    losses = heads.box_predictor.roi_losses(view.predictions[0], view.samples[0])
    assert count(lambda: heads.sample_weights.weigh(view, losses)).syncs == 0
    one = count(lambda: OHEM().choose(view, losses, 8, 0.25)).syncs
    assert one == 1  # how many of every image


@pytest.mark.parametrize("name", ["OHEM", "PISA", "SamplingFree", "ClassBalancedRoIs"])
def test_weights_in_mixed_precision(name):
    heads, targets = h.build(h.tiny_cfg(**{KEY: ACTIVE[name]})), h.targets((4, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16), h.EventStorage():
        losses = heads.train()(None, h.features(2), h.proposals(targets), targets)[1]
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in heads.parameters()) and all(loss > 0 for loss in losses.values())
