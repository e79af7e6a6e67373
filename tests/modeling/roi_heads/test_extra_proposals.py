"""Generated boxes as extra positives of ordinary heads: who trains on them, and who does not see them."""

import os

import pytest
import roi_heads_tools as h
import torch
from d2_balanced.config import load_lazy, load_yaml
from d2_balanced.modeling.ignore_regions import TargetsWithRegions
from d2_balanced.modeling.extra_proposals import GeneratedPositives
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from paths import ROOT
from tiny_runs import quick_config

EXTRA = {"NAME": "GeneratedPositives"}
FAR = torch.tensor([[0.0, 0.0, 4.0, 4.0]])


def heads_with(extra=EXTRA, **changes):
    return h.build(h.tiny_cfg(MODEL__BALANCED__EXTRA_PROPOSALS=extra, **changes))


def far_proposals(targets, num=60):
    """Proposals that match nothing: the only positives are appended ground truth and generated boxes."""
    fields = {"proposal_boxes": Boxes(FAR.repeat(num, 1)), "objectness_logits": torch.zeros(num)}
    return [Instances(image.image_size, **fields) for image in targets]


def labeled_by(heads, props, targets, seed=0):
    _, views = h.watched_step(heads, h.features(len(targets)), props, targets, seed=seed)
    return views[0].labeled[0]


def test_the_positive_fraction_is_filled():
    targets = h.targets((3, 5))
    plain, more = heads_with({"NAME": ""}), heads_with()
    samples = [h.train_step(heads, h.features(2), far_proposals(targets), targets)[2] for heads in (plain, more)]
    positives = [[int((image.gt_classes < 3).sum()) for image in batch] for batch in samples]
    assert positives == [[3, 5], [8, 8]], "of 32 samples an image and a positive fraction of 0.25"
    assert not samples[0][0].has("is_generated")
    for image, objects in zip(samples[1], targets):
        made = image[image.is_generated]
        assert len(made) > 0 and (made.matched_ious >= 0.499).all() and made.is_gt.all()
        assert torch.equal(made.gt_boxes.tensor, objects.gt_boxes.tensor[made.matched_idxs])
        assert torch.equal(made.gt_classes, objects.gt_classes[made.matched_idxs])


@pytest.mark.parametrize("per_positive", [1.0, 2.0])
def test_equal_and_double_are_relative_to_the_positive_proposals(per_positive):
    targets = h.targets((4, 6, 0))
    props = h.proposals(targets)
    plain = labeled_by(heads_with({"NAME": ""}), props, targets)
    images = labeled_by(heads_with({**EXTRA, "PER_POSITIVE": per_positive}), props, targets)
    positives = [int(((image.gt_classes < 3) & ~image.is_gt).sum()) for image in plain]
    assert positives[0] > 5 and positives[2] == 0
    assert [int(image.is_generated.sum()) for image in images] == [int(per_positive * num) for num in positives]
    for image, own in zip(images, plain):  # the proposals come first, as they were
        assert torch.equal(image.gt_classes[: len(own)], own.gt_classes)
        assert not image.is_generated[: len(own)].any()
        assert torch.equal(image.is_gt[: len(own)], own.is_gt)


def test_all_boxes_and_the_same_ones_for_one_seed():
    targets = h.targets((2, 3))
    heads = heads_with({**EXTRA, "NUM_PER_INTERVAL": 5})
    one, two, other = (labeled_by(heads, h.proposals(targets), targets, seed) for seed in (1, 1, 2))
    assert [int(image.is_generated.sum()) for image in one] == [2 * 4 * 5, 3 * 4 * 5]
    same = [torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor) for a, b in zip(one, two)]
    assert same == [True, True] and not torch.equal(one[0].proposal_boxes.tensor, other[0].proposal_boxes.tensor)


@pytest.mark.parametrize("objects", [(0, 0), (4, 0)])
def test_images_without_objects(objects):
    targets = h.targets(objects)
    losses, gradients, samples, *_ = h.train_step(heads_with(), h.features(2), h.proposals(targets), targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert not samples[1].is_generated.any() and len(samples[1]) == 32


def test_everything_in_an_ignore_region():
    everywhere = Boxes(torch.tensor([[0.0, 0.0, *reversed(h.IMAGE_SIZE)]]))
    targets = [TargetsWithRegions(image, everywhere) for image in h.targets((0, 3))]
    losses, _, samples, *_ = h.train_step(heads_with(), h.features(2), h.proposals(targets), targets)
    assert len(samples[0]) == 0 and samples[1].is_generated.any() and (samples[1].gt_classes < 3).all()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("stages", ["CascadeStages", "RecursiveStages"])
def test_the_later_stages_match_what_the_first_refined(stages):
    changes = {"MODEL__BALANCED__STAGES": {"NAME": stages}, "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
    targets = h.targets((3, 0))
    (losses, gradients, *_), views = h.watched_step(heads_with(**changes), h.features(2), h.proposals(targets), targets)
    assert len([name for name in losses if name.startswith("loss_cls")]) == 3
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert [any(image.has("is_generated") for image in view.labeled[0]) for view in views] == [True, False, False]


def test_adaptive_components_do_not_see_generated_boxes():
    watcher, targets = h.Watcher(), h.targets((3, 4))
    props, heads = h.proposals(targets), heads_with()
    heads.box_predictor.box_loss.observe = watcher.observe
    _, (whole,) = h.watched_step(heads, h.features(2), props, targets)
    (seen,) = watcher.views
    plain = labeled_by(heads_with({"NAME": ""}), props, targets)
    for image, own in zip(seen.labeled[0], plain):
        assert torch.equal(image.proposal_boxes.tensor, own.proposal_boxes.tensor) and not image.is_generated.any()
    kept = [~image.is_generated for image in whole.samples[0]]
    assert any(not rows.all() for rows in kept), "no generated box was drawn"
    assert [len(image) for image in seen.samples[0]] == [int(rows.sum()) for rows in kept]
    rows = torch.cat(kept)
    for of_branch, of_all in zip([seen.pooled[0], *seen.predictions[0]], [whole.pooled[0], *whole.predictions[0]]):
        assert torch.equal(of_branch, of_all[rows])


def test_each_branchs_loss_sees_its_own_samples_and_the_matcher_those_of_the_main_branch():
    heads = heads_with({"NAME": ""}, MODEL__BALANCED__BRANCHES=[{"POSITIVE_FRACTION": 0.1}, {"POSITIVE_FRACTION": 0.5}])
    watchers = [h.Watcher() for _ in range(3)]
    matcher = heads.matchers[0]
    for component, watcher in zip([*(b.predictor(0).box_loss for b in heads.branches), matcher], watchers):
        component.observe = watcher.observe
    targets = h.targets((3, 4))
    _, (whole,) = h.watched_step(heads, h.features(2), h.proposals(targets), targets)
    for watcher, p in zip(watchers, (0, 1, heads.main_branch)):
        (view,) = watcher.views
        assert (view.stage, view.targets) == (0, targets) and all(len(lists) == 1 for lists in view[2:])
        assert all(a[0] is b[p] for a, b in zip(view[2:], whole[2:]))
    assert heads.main_branch == 1


def test_without_it_training_is_as_it_was():
    targets = h.targets((3, 4))
    results = [
        h.train_step(heads, h.features(2), h.proposals(targets), targets)
        for heads in (h.build(h.tiny_cfg("StandardROIHeads")), heads_with({"NAME": ""}))
    ]
    (losses, gradients, _, _, draw), (same_losses, same_gradients, _, _, same_draw) = results
    assert {name: loss.item() for name, loss in losses.items()} == {k: v.item() for k, v in same_losses.items()}
    assert all(torch.equal(gradients[name], same_gradients[name]) for name in gradients) and torch.equal(draw, same_draw)


def test_inference_has_no_extra_boxes():
    targets = h.targets((3, 4))
    found = [h.detect(heads, h.features(2), h.proposals(targets)) for heads in (heads_with({"NAME": ""}), heads_with())]
    for plain, extra in zip(*found):
        assert torch.equal(plain.pred_boxes.tensor, extra.pred_boxes.tensor) and len(plain) > 0


def test_bad_settings():
    with pytest.raises(ValueError, match="GeneratedPositives: per_positive must be 0 or more, got -1"):
        GeneratedPositives(per_positive=-1)


def test_both_fragments(tmp_path):
    components = os.path.join(ROOT, "projects", "IoUUniformRCNN", "configs", "components")
    lazy = load_lazy(quick_config("faster_rcnn", "py")).model
    LazyConfig.load(os.path.join(components, "iou_uniform.py"), "extra_positives")(lazy)
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: ['{quick_config('faster_rcnn')}', '{components}/extra_positives.yaml']\n")
    models = [build_model(load_yaml(str(config), ["MODEL.DEVICE", "cpu"])), instantiate(lazy)]
    assert [model.roi_heads.extra_proposals.per_positive for model in models] == [1.0, 1.0]
    assert [list(model.state_dict()) for model in models] == [list(models[0].state_dict())] * 2
    assert not any("extra_proposals" in name for name in models[0].state_dict()), "checkpoints stay as they were"
