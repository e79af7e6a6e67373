"""The IoU branch: its losses against golden file 6, what it takes over, and how it changes the scores."""

import copy

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from paths import shared_file

import roi_heads_tools as h
from d2_balanced.modeling.roi_heads.iou_losses import INTERVAL_WEIGHTS, iou_loss, weighted_box_loss, weights_by_iou


def heads_with(seed=0, **arguments):
    node = {"NAME": "IoUBranch", **{key.upper(): value for key, value in arguments.items()}}
    heads = h.build(h.tiny_cfg(MODEL__BALANCED__IOU_BRANCH=node), seed)
    with torch.no_grad():  # predictions that differ from box to box
        for layer in [*heads.iou_branch.regressor, *(heads.iou_branch.iou_predictor or [])]:
            layer.weight.mul_(30)
    return heads


def batch(objects=(4, 7)):
    targets = h.targets(objects)
    return h.features(len(objects)), h.proposals(targets), targets


@pytest.fixture(scope="module")
def golden():
    with np.load(shared_file("golden", "iou_uniform.npz"), allow_pickle=False) as data:
        return {key: torch.from_numpy(np.asarray(data[key])) for key in data.files if "loss" in key or "weight" in key}


def test_interval_weights_are_the_released_ones(golden):
    for name, column in (("released", "weight_code"), ("paper", "weight_paper")):
        assert torch.tensor(INTERVAL_WEIGHTS[name]).tolist() == golden[column].tolist()
    weights = weights_by_iou(golden["weight_test_iou"], torch.tensor(INTERVAL_WEIGHTS["released"]))
    torch.testing.assert_close(weights, golden["weight_test_code"], atol=1e-6, rtol=0)


def test_losses_are_the_released_ones(golden):
    pred, target, ious = golden["loss_pred"], golden["loss_target"], golden["loss_iou"]
    for name, expected in (("released", "loss_reg_code"), ("paper", "loss_reg_paper_weights_mean")):
        weights = weights_by_iou(ious, torch.tensor(INTERVAL_WEIGHTS[name]))
        assert weighted_box_loss(pred, target, weights).item() == pytest.approx(golden[expected].item(), abs=1e-6)
    assert iou_loss(pred[:, 0], ious).item() == pytest.approx(golden["loss_iou_smoothl1_beta0p5"].item(), abs=1e-6)


def test_losses_of_nothing_are_zero():
    nothing = torch.zeros(0, 4, requires_grad=True)
    assert weighted_box_loss(nothing, torch.zeros(0, 4), torch.zeros(0)) == 0
    assert iou_loss(nothing[:, 0], torch.zeros(0)) == 0


def test_the_classifiers_own_regressor_is_frozen_and_has_no_loss():
    heads = heads_with()
    losses, gradients, *_ = h.train_step(heads, *batch())
    assert set(losses) == {"loss_cls", "loss_iou_box_reg", "loss_iou"}
    assert not any("bbox_pred" in name for name in gradients)
    assert {name for name, p in heads.named_parameters() if p.requires_grad} <= gradients.keys()


def test_masks_on_predicted_boxes_train_on_those_of_the_branch(monkeypatch):
    node = {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch"}, "MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES": True}
    heads = h.build(h.tiny_cfg(**node))
    feats, props, targets = batch()
    seen, boxes = [], heads.iou_branch.boxes
    monkeypatch.setattr(heads.iou_branch, "boxes", lambda *args: seen.append(boxes(*args)) or seen[-1])
    samples = h.train_step(heads, feats, props, targets)[2]
    assert len(seen) == 1
    assert all(torch.equal(image.proposal_boxes.tensor, b) for image, b in zip(samples, seen[0]))


def test_classifier_gradients_do_not_come_from_generated_boxes():
    """The classifier's head sees the proposals only: with the IoU branch's losses off its gradients stay the same."""
    heads = heads_with()
    feats, props, targets = batch()
    _, both, *_ = h.train_step(heads, feats, props, targets)
    alone = copy.deepcopy(heads)
    alone.iou_branch.losses = lambda *args: {}
    _, cls_only, *_ = h.train_step(alone, feats, props, targets)
    of_classifier = [name for name in cls_only if "box_head" in name or "cls_score" in name]
    assert len(of_classifier) == 4  # weights and biases of a layer each
    for name in of_classifier:
        assert torch.equal(both[name], cls_only[name]) and cls_only[name].any(), name


def test_no_objects_give_zero_losses_and_zero_gradients():
    losses, gradients, *_ = h.train_step(heads_with(), *batch((0, 0)))
    assert losses["loss_iou"] == 0 and losses["loss_iou_box_reg"] == 0
    assert all(g.abs().sum() == 0 for name, g in gradients.items() if "iou_branch" in name)


def test_a_step_under_autocast_trains_and_generates_in_float32():
    """bfloat16 as in training with SOLVER.AMP: generated boxes stay float32, every gradient is there and finite."""
    heads, made = heads_with(), []
    generator = heads.iou_branch.sources["uniform"].generators[0]
    generator.register_forward_hook(lambda module, inputs, output: made.extend(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, gradients, *_ = h.train_step(heads, *batch())
    assert len(made) == 2 and all(m.boxes.dtype == m.ious.dtype == torch.float32 for m in made)
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values()), losses
    assert {name for name, p in heads.named_parameters() if p.requires_grad} <= gradients.keys()
    assert all(torch.isfinite(g).all() for g in gradients.values())


def test_more_than_a_hundred_objects_train():
    losses, gradients, *_ = h.train_step(heads_with(), *batch((120, 3)))
    assert all(torch.isfinite(loss) for loss in losses.values()) and losses["loss_iou"] > 0
    assert all(torch.isfinite(g).all() for g in gradients.values())


def test_an_object_without_area_leaves_the_losses_finite():
    feats, props, targets = batch((3, 1))
    targets[1].gt_boxes = Boxes(torch.tensor([[20.0, 20.0, 20.0, 40.0]]))
    losses, gradients, *_ = h.train_step(heads_with(), feats, props, targets)
    assert all(torch.isfinite(losses[name]) for name in ("loss_iou_box_reg", "loss_iou", "loss_cls")), losses
    assert all(torch.isfinite(g).all() for g in gradients.values())


def test_offsets_of_all_boxes_or_only_of_candidates_give_the_same_detections():
    feats, props, _ = batch()
    some, everyone = heads_with(), heads_with(efo_all=True)
    assert some.box_predictor.test_score_thresh == 0.01
    for predictor in (some.box_predictor, everyone.box_predictor):
        predictor.test_score_thresh = 0.3  # so that some boxes are no candidates
    for a, b in zip(h.detect(some, feats, props), h.detect(everyone, feats, props)):
        assert len(a) > 0
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=1e-5)  # batches of another size round otherwise


def test_score_is_class_score_times_predicted_iou_at_the_refined_box():
    heads = heads_with(cls_power=0.5, iou_power=2.0)
    feats, props, _ = batch()
    detections = h.detect(heads, feats, props)
    maps = [feats[f] for f in heads.box_in_features]
    branch = heads.iou_branch
    boxes = [d.pred_boxes for d in detections]
    predicted = branch.iou_predictor[0](branch.iou_head(heads.box_pooler(maps, boxes)).flatten(1))[:, 0].sigmoid()
    pooled = heads.box_pooler(maps, [p.proposal_boxes for p in props])
    logits, deltas = heads.branches[0].predict(pooled, 0)
    refined = branch.boxes(heads.box_predictor, (logits, deltas), pooled, props, 0)
    probs = logits.softmax(dim=1).split([len(p) for p in props])
    for detection, ious, image_boxes, image_probs in zip(
        detections, predicted.split([len(b) for b in boxes]), refined, probs
    ):
        image_boxes = Boxes(image_boxes)
        image_boxes.clip(detection.image_size)
        row = torch.cdist(detection.pred_boxes.tensor, image_boxes.tensor).argmin(dim=1)
        expected = image_probs[row, detection.pred_classes] ** 0.5 * ious**2
        assert len(detection) > 0
        torch.testing.assert_close(detection.scores, expected, atol=1e-5, rtol=1e-4)


def test_powers_one_and_zero_leave_the_class_scores():
    heads = heads_with(iou_power=0.0)
    feats, props, _ = batch()
    plain = copy.deepcopy(heads)
    plain.iou_branch.iou_predictor = None  # no rescoring at all
    for a, b in zip(h.detect(heads, feats, props), h.detect(plain, feats, props)):
        assert len(a) > 0
        assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


def test_the_score_threshold_applies_to_the_class_score_before_the_product():
    heads = heads_with(iou_power=8.0)  # products far below the threshold
    feats, props, _ = batch()
    detections = h.detect(heads, feats, props)
    assert all(len(d) > 0 for d in detections)
    assert min(d.scores.min() for d in detections) < heads.box_predictor.test_score_thresh


@pytest.mark.parametrize("activation", ["sigmoid", "clamp"])
def test_scores_stay_positive_and_below_one(activation):
    heads = heads_with(iou_activation=activation)
    feats, props, _ = batch()
    for detection in h.detect(heads, feats, props):
        assert len(detection) > 0 and (detection.scores > 0).all() and (detection.scores <= 1).all()


def test_equal_and_double_follow_the_number_of_positives_that_the_rpn_produced():
    """Appended ground truth, of which the minibatch has some, is not counted (table 5: "original positive samples")."""
    feats, props, targets = batch()
    for ratio in (1.0, 2.0):
        heads = heads_with(samples_per_positive=ratio)
        drawn = []
        source = heads.iou_branch.sources["uniform"]
        source.register_forward_hook(lambda module, args, out: drawn.append((args, out)))
        h.train_step(heads, feats, props, targets)
        (_, samples, _), made = drawn[0]
        assert any(((image.gt_classes < 3) & image.is_gt).any() for image in samples)
        positives = [int(((image.gt_classes < 3) & ~image.is_gt).sum()) for image in samples]
        assert min(positives) > 0
        assert [len(boxes) for boxes in made.per_image] == [ratio * num for num in positives]


def test_positives_that_are_all_appended_ground_truth_ask_for_no_boxes():
    feats, props, targets = batch()
    losses, *_ = h.train_step(heads_with(samples_per_positive=2.0), feats, [p[:0] for p in props], targets)
    assert losses["loss_iou"] == losses["loss_iou_box_reg"] == 0


@pytest.mark.parametrize("num, cascade", [(None, False), (5, False), (8, False), (2, True)])
def test_the_number_of_intervals_can_be_set(num, cascade):
    stages = {"MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"}, **h.AGNOSTIC} if cascade else {}
    node = {"NAME": "IoUBranch", "NUM_PER_INTERVAL": 3, **({} if num is None else {"NUM_INTERVALS": num})}
    heads, drawn = h.build(h.tiny_cfg(MODEL__BALANCED__IOU_BRANCH=node, **stages)), []
    heads.iou_branch.sources["uniform"].register_forward_hook(lambda module, args, out: drawn.append(out.ious))
    feats, props, targets = batch((1, 1))
    losses, *_ = h.train_step(heads, feats, props, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    for stage, ious in enumerate(drawn):
        low = 0.5 + 0.1 * stage
        edges = [0.5, 0.6, 0.7, 0.8, 1.0] if num is None else [low + (1 - low) * k / num for k in range(num + 1)]
        counts = [int(((ious >= a) & (ious <= b)).sum()) for a, b in zip(edges[:-1], edges[1:])]
        assert counts == [3 * 2] * (len(edges) - 1), (stage, counts)


def test_the_iou_predictor_trains_on_negatives_where_it_is_told_to():
    feats, props, targets = batch()
    seen = {}
    for negatives in (False, True):
        heads = heads_with(iou_negatives=negatives, regressor_samples="proposals", iou_samples="proposals")
        heads.iou_branch.iou_predictor[0].register_forward_hook(lambda m, args, out: seen.update({negatives: len(out)}))
        losses, _, samples, _, _ = h.train_step(heads, feats, props, targets)
        assert torch.isfinite(losses["loss_iou"])
    is_positive = torch.cat([image.gt_classes < 3 for image in samples])
    assert seen == {False: int(is_positive.sum()), True: len(is_positive)} and not is_positive.all()
    losses, *_ = h.train_step(heads_with(iou_negatives=True), *batch((0, 0)))
    assert losses["loss_iou"] > 0, "negatives of images without objects have IoU 0"


PROPOSALS = {"regressor_samples": "proposals", "iou_samples": "proposals"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_intervals": 0}, "num_intervals"),
        ({"regressor_samples": "rpn"}, "regressor_samples"),
        ({"iou_samples": "rpn"}, "iou_samples"),
        ({"samples_per_positive": -1.0}, "samples_per_positive"),
        ({"interval_weights": "mine"}, "interval_weights"),
        ({"interval_weights": [1.0, 2.0]}, "interval_weights"),
        ({"iou_activation": "relu"}, "iou_activation"),
        ({"iou_power": -1.0}, "iou_power"),
        ({"num_per_interval": 0}, "num_per_interval"),
        ({"iou_negatives": True, "predict_iou": False}, "iou_negatives=True.*predict_iou=False"),
        ({"num_intervals": 8, **PROPOSALS}, "num_intervals=8.*regressor_samples=proposals"),
        ({"samples_per_positive": 1.0, **PROPOSALS}, "samples_per_positive=1.0.*regressor_samples=proposals"),
        ({"num_intervals": 8, "regressor_samples": "proposals", "predict_iou": False}, "num_intervals=8"),
    ],
)
def test_bad_settings_name_the_key(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        heads_with(**arguments)
    assert "MODEL.BALANCED.IOU_BRANCH" in str(error.value)
