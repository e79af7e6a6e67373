"""Stages, branches and options in combination: they train and infer, also on images with nothing to learn from."""

import copy

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

import roi_heads_tools as h
from roi_heads_tools import AGNOSTIC, CASCADE, FLOW, RECURSIVE

RESAMPLED = {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages", "RESAMPLE": True, "KEEP_APPENDED_GT": False}}
IGNORE = {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.3, 0.5], "MODEL__ROI_HEADS__IOU_LABELS": [0, -1, 1]}
ON_PROPOSALS = {"NAME": "IoUBranch", "REGRESSOR_SAMPLES": "proposals", "IOU_SAMPLES": "proposals", "EFO": False}
NO_FLOW = {**FLOW, "MODEL__BALANCED__MASKS": {"NAME": "InterleavedMasks", "INFORMATION_FLOW": False}}
COMBINATIONS = {
    "interleaved masks": FLOW,
    "cascade, interleaved masks": {**AGNOSTIC, **CASCADE, **FLOW},
    "recursive, branches, interleaved masks": {**AGNOSTIC, **RECURSIVE, **h.BRANCHES, **FLOW},
    "recursive, interleaved masks without flow": {**AGNOSTIC, **RECURSIVE, **NO_FLOW},
    "iou branch": h.IOU_BRANCH,
    "iou branch on proposals": {"MODEL__BALANCED__IOU_BRANCH": ON_PROPOSALS},
    "iou branch, regressor only": {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch", "PREDICT_IOU": False}},
    "iou branch, equal": {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch", "SAMPLES_PER_POSITIVE": 1.0}},
    "iou branch, cascade": {**AGNOSTIC, **CASCADE, **h.IOU_BRANCH},
    "iou branch, recursive, branches": {**RECURSIVE, **h.BRANCHES, **h.IOU_BRANCH},
    "branches": h.BRANCHES,
    "class-specific cascade": CASCADE,
    "cascade, branches": {**AGNOSTIC, **CASCADE, **h.BRANCHES},
    "resampled cascade": {**AGNOSTIC, **RESAMPLED},
    "recursive": {**AGNOSTIC, **RECURSIVE},
    "class-specific recursive": RECURSIVE,
    "recursive, branches, masks": {**AGNOSTIC, **RECURSIVE, **h.BRANCHES, "MODEL__MASK_ON": True},
    "recursive, no appended gt": {**RECURSIVE, "MODEL__ROI_HEADS__PROPOSAL_APPEND_GT": False},
    "branches, ignored band": {**h.BRANCHES, **IGNORE},
}


def one_proposal(targets):
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    return [Instances(h.IMAGE_SIZE, proposal_boxes=Boxes(box), objectness_logits=torch.zeros(1)) for _ in targets]


def no_proposals(targets):
    return [p[:0] for p in h.proposals(targets)]


BATCHES = {
    "objects": lambda: (t := h.targets((4, 7)), h.proposals(t)),
    "one image without objects": lambda: (t := h.targets((0, 5)), h.proposals(t)),
    "no objects at all": lambda: (t := h.targets((0, 0)), h.proposals(t)),
    "one proposal": lambda: (t := h.targets((2, 0)), one_proposal(t)),
    "no proposals": lambda: (t := h.targets((3, 0)), no_proposals(t)),
}


def batch(kind, masks=False):
    objects, props = BATCHES[kind]()
    return h.features(len(objects)), props, h.targets([len(o) for o in objects], masks=masks)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_trains_with_finite_losses_and_gradients(name, kind):
    heads = h.build(h.tiny_cfg(**COMBINATIONS[name]))
    feats, props, targets = batch(kind, masks=heads.mask_on)
    losses, gradients, _, logged, _ = h.train_step(heads, feats, props, targets)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert {n for n, p in heads.named_parameters() if p.requires_grad} <= gradients.keys(), "unused parameters break DDP"


@pytest.mark.parametrize("name", COMBINATIONS)
def test_infers_and_does_not_change_its_input(name):
    heads = h.build(h.tiny_cfg(**COMBINATIONS[name]))
    feats, props, _ = batch("objects")
    before = copy.deepcopy(props)
    detections = h.detect(heads, feats, props)
    assert all(len(d) > 0 and torch.isfinite(d.scores).all() for d in detections)
    assert all(torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor) for a, b in zip(before, props))
    assert [len(d) for d in h.detect(heads, feats, [p[:0] for p in props])] == [0, 0]


def test_names_of_losses_and_logs_show_the_axes_that_are_longer_than_one():
    heads = h.build(h.tiny_cfg(**COMBINATIONS["cascade, branches"]))
    losses, _, _, logged, _ = h.train_step(heads, *batch("objects"))
    assert set(losses) == {
        f"loss_{kind}_stage{k}_branch{p}" for kind in ("cls", "box_reg") for k in range(3) for p in range(2)
    }
    assert "branch1/roi_head/num_fg_samples" in logged
    assert "stage2/branch0/fast_rcnn/cls_accuracy" in logged


def test_each_branch_draws_its_own_share_of_positives():
    heads = h.build(h.tiny_cfg(**h.BRANCHES))
    logged = h.train_step(heads, *batch("objects"))[3]
    assert logged["branch0/roi_head/num_fg_samples"] == int(0.1 * 32)
    assert logged["branch1/roi_head/num_fg_samples"] == int(0.5 * 32)


def test_branches_are_pooled_as_if_each_were_alone():
    heads = h.build(h.tiny_cfg(**h.BRANCHES))
    feats, props, targets = batch("objects")
    maps = [feats[f] for f in heads.box_in_features]
    _, (view,) = h.watched_step(heads, feats, props, targets)
    assert len(view.pooled) == 2 and len(view.pooled[0]) > 0
    for pooled, samples in zip(view.pooled, view.samples):
        assert torch.equal(pooled, heads.box_pooler(maps, [s.proposal_boxes for s in samples]))
    first, second = ([s.proposal_boxes.tensor for s in samples] for samples in view.samples)
    assert not any(torch.equal(a, b) for a, b in zip(first, second)), "both branches have the same samples"


def test_detections_of_branches_average_logits_and_take_the_boxes_of_the_most_positive():
    heads = h.build(h.tiny_cfg(**h.BRANCHES))
    assert heads.main_branch == 1
    feats, props, _ = batch("objects")
    pooled = heads.box_pooler([feats[f] for f in heads.box_in_features], [p.proposal_boxes for p in props])
    first, second = [branch.predict(pooled, 0) for branch in heads.branches]
    alone = copy.deepcopy(heads.branches[1].box_predictor)
    expected, _ = alone.inference(((first[0] + second[0]) / 2, second[1]), props)
    for want, got in zip(expected, h.detect(heads, feats, props)):
        torch.testing.assert_close(want.pred_boxes.tensor, got.pred_boxes.tensor)
        torch.testing.assert_close(want.scores, got.scores)


def test_one_branch_evaluated_alone_equals_the_single_head():
    heads = h.build(h.tiny_cfg(**h.BRANCHES, MODEL__BALANCED__TEST_BRANCHES=[0]))
    single = h.build(h.tiny_cfg())
    single.load_state_dict({k: v for k, v in heads.state_dict().items() if "_branch1" not in k})
    feats, props, _ = batch("objects")
    for want, got in zip(h.detect(single, feats, props), h.detect(heads, feats, props)):
        assert len(want) > 0
        assert torch.equal(want.scores, got.scores) and torch.equal(want.pred_boxes.tensor, got.pred_boxes.tensor)


def test_a_single_head_checkpoint_fills_every_branch():
    single = h.build(h.tiny_cfg(), seed=5)
    heads = h.build(h.tiny_cfg(**h.BRANCHES), seed=6)
    result = heads.load_state_dict(single.state_dict(), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    for p in range(2):
        assert torch.equal(heads.branches[p].box_predictor.cls_score.weight, single.box_predictor.cls_score.weight)


EVERY_HEAD = {
    **AGNOSTIC, **h.FLOW,
    "MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch"},
    "MODEL__BALANCED__MASK_IOU_HEAD": {"NAME": "MaskIoUHead", "CONV_DIM": 8, "FC_DIMS": [16]},
}  # fmt: skip


def gradients_by_loss(seed=0, **stages):
    """``{loss: its gradients at the feature maps}`` of a cascade with an IoU branch, masks and their scores."""
    heads = h.build(h.tiny_cfg(**EVERY_HEAD, MODEL__BALANCED__STAGES={"NAME": "CascadeStages", **stages}), seed)
    feats, props, _ = batch("objects")
    feats = {name: value.requires_grad_() for name, value in feats.items()}
    torch.manual_seed(4)
    with EventStorage():
        _, losses = heads.train()(None, feats, props, h.targets((4, 7), masks=True))
    maps = list(feats.values())
    return {k: torch.cat([g.flatten() for g in torch.autograd.grad(v, maps, retain_graph=True)]) for k, v in losses.items()}


def test_all_heads_of_a_stage_have_its_gradient_scale_and_but_for_the_mask_iou_its_weight():
    whole = gradients_by_loss(FEATURE_GRAD_SCALE=1.0)
    scaled = gradients_by_loss(LOSS_WEIGHTS=(1.0, 0.5, 0.25))  # the default: one third in a cascade of three
    kinds = {name.rsplit("_stage", 1)[0] for name in whole}
    assert kinds == {"loss_cls", "loss_iou_box_reg", "loss_iou", "loss_mask", "loss_mask_iou"}
    for name, gradient in whole.items():
        weight = 1.0 if "mask_iou" in name else (1.0, 0.5, 0.25)[int(name[-1])]
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(scaled[name], gradient * weight / 3, atol=1e-7, rtol=1e-4)


def one_loop(single, feats, props):
    """A single-stage head's logits and boxes for these proposals, and the boxes, clipped, as the next ones."""
    pooled = single.box_pooler([feats[f] for f in single.box_in_features], [p.proposal_boxes for p in props])
    logits, deltas = single.box_predictor(single.box_head(pooled))
    boxes = [b.detach() for b in single.box_predictor.predict_boxes((logits, deltas), props)]
    refined = [Instances(h.IMAGE_SIZE, proposal_boxes=Boxes(b.clone())) for b in boxes]
    for image in refined:
        image.proposal_boxes.clip(h.IMAGE_SIZE)
    return logits.detach(), boxes, refined


@pytest.mark.parametrize("loops", [1, 2, 5])
def test_a_recursive_head_has_the_keys_of_a_single_one_and_any_number_of_test_loops(loops):
    single = h.build(h.tiny_cfg(**AGNOSTIC))
    stages = {"NAME": "RecursiveStages", "NUM_TEST": loops}
    heads = h.build(h.tiny_cfg(**AGNOSTIC, MODEL__BALANCED__STAGES=stages), seed=1)
    heads.load_state_dict(single.state_dict(), strict=True)
    feats, props, _ = batch("objects")
    all_logits, refined = [], props
    for _ in range(loops):
        logits, boxes, refined = one_loop(single, feats, refined)
        all_logits.append(logits)
    scores = (sum(all_logits) / loops).softmax(dim=1).split([len(p) for p in props])
    predictor, sizes = single.box_predictor, [h.IMAGE_SIZE] * len(props)
    limits = predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image
    tolerance = {"rtol": 0, "atol": 0} if loops == 1 else {}
    for want, got in zip(fast_rcnn_inference(boxes, scores, sizes, *limits)[0], h.detect(heads, feats, props)):
        assert len(want) > 0
        torch.testing.assert_close(want.scores, got.scores, **tolerance)
        torch.testing.assert_close(want.pred_boxes.tensor, got.pred_boxes.tensor, **tolerance)


def test_a_later_loop_alone_is_a_single_stage_on_the_boxes_that_the_one_before_refined():
    single = h.build(h.tiny_cfg(**AGNOSTIC))
    feats, props, _ = batch("objects")
    stages = {"NAME": "RecursiveStages", "NUM_TEST": 2, "MERGE": "last"}
    heads = h.build(h.tiny_cfg(**AGNOSTIC, MODEL__BALANCED__STAGES=stages))
    _, _, refined = one_loop(single, feats, props)
    for want, got in zip(h.detect(single, feats, refined), h.detect(heads, feats, props)):
        assert len(want) > 0
        assert torch.equal(want.scores, got.scores) and torch.equal(want.pred_boxes.tensor, got.pred_boxes.tensor)


def test_recursive_loops_drop_appended_objects_and_append_them_anew():
    heads = h.build(h.tiny_cfg(**AGNOSTIC, **RECURSIVE))
    _, views = h.watched_step(heads, *batch("objects"))
    assert len(views) == 3
    for view in views:
        assert [int(image.is_gt.sum()) for image in view.labeled[0]] == [4, 7]
    for before, after in zip(views, views[1:]):
        assert any(image.is_gt.any() for image in before.samples[0]), "no appended object was drawn"
        for drawn, image in zip(before.samples[0], after.labeled[0]):
            assert (~image.is_gt).sum() <= (~drawn.is_gt).sum()  # the refined boxes, fewer by those that became empty


def test_boxes_that_all_became_empty_leave_a_later_stage_that_still_trains():
    heads = h.build(h.tiny_cfg(**AGNOSTIC, **CASCADE, MODEL__ROI_HEADS__PROPOSAL_APPEND_GT=False))
    with torch.no_grad():
        heads.box_predictor[0].bbox_pred.weight.zero_()
        heads.box_predictor[0].bbox_pred.bias.copy_(torch.tensor([9e3, 0.0, 0.0, 0.0]))  # all boxes leave the image
    losses, gradients, *_ = h.train_step(heads, *batch("objects"))
    assert losses["loss_box_reg_stage1"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(g).all() for g in gradients.values())


def test_ignored_proposals_are_neither_sampled_nor_kept_in_later_stages():
    heads = h.build(h.tiny_cfg(**AGNOSTIC, **CASCADE))
    heads.matchers[1].labels, heads.matchers[1].thresholds = [0, -1, 1], [-float("inf"), 0.3, 0.6, float("inf")]
    _, views = h.watched_step(heads, *batch("objects"))
    ignored = [sum(int((image.gt_classes == -1).sum()) for image in view.labeled[0]) for view in views]
    assert ignored[0] == ignored[2] == 0 and ignored[1] > 0, "only the second stage's matcher can ignore"
    for view in views:
        assert all(len(image) > 0 and (image.gt_classes >= 0).all() for image in view.samples[0])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"MODEL__BALANCED__TEST_BRANCHES": [1]}, ["TEST_BRANCHES", "0", "[1]"]),
        ({**RECURSIVE, "MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES": True}, ["TRAIN_ON_PRED_BOXES", "RecursiveStages"]),
        ({**FLOW, "MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead"}, ["InterleavedMasks", "ConvUpsampleHead"]),
        ({"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages", "NUM_TEST": 4}}, ["num_test", "3", "4"]),
        ({"MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", "LOSS_WEIGHTS": [1.0]}}, ["loss_weights", "3"]),
        ({"MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", "MERGE": "mean"}}, ["merge", "logit", "mean"]),
        ({"MODEL__BALANCED__BRANCHES": [{"POSITIVE_FRACTION": 0.0}]}, ["positive_fraction", "above 0", "0.0"]),
        ({**CASCADE, "MODEL__ROI_BOX_CASCADE_HEAD__BBOX_REG_WEIGHTS": ((10, 10, 5, 5),)}, ["BBOX_REG_WEIGHTS", "IOUS"]),
    ],
)
def test_axes_that_do_not_fit_are_refused_naming_both_sides(changes, words):
    with pytest.raises(ValueError) as error:
        h.build(h.tiny_cfg(**changes))
    assert all(word in str(error.value) for word in words), str(error.value)
