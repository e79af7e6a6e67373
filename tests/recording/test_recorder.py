"""The recorder's counts against a scalar reference, and that it leaves training as it is."""

import pytest
import roi_heads_tools as h
import torch
from d2_balanced.recording.counts import CLASS_FIELDS, FIELDS, ImbalanceCounts
from d2_balanced.recording.recorder import ImbalanceRecorder
from reference.imbalance import count_step

TWO_BRANCHES = [{"POSITIVE_FRACTION": 0.1}, {"POSITIVE_FRACTION": 0.5}]
HEADS = {
    "standard": {},
    "class-agnostic": {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True},
    "two branches": {"MODEL__BALANCED__BRANCHES": TWO_BRANCHES},
    "cascade": {
        "MODEL__BALANCED__STAGES": {"NAME": "CascadeStages"},
        "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
    },
    "loops, two branches": {
        "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages"},
        "MODEL__BALANCED__BRANCHES": TWO_BRANCHES,
    },
    "IoU branch": {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch"}},
    "three labels": {"MODEL__ROI_HEADS__IOU_THRESHOLDS": [0.3, 0.6], "MODEL__ROI_HEADS__IOU_LABELS": [0, -1, 1]},
}


def _named(node, name, **arguments):
    return {f"MODEL__BALANCED__{node}": {"NAME": name, **arguments}}


def train(name, objects, observers=(), steps=1):
    """The heads after training steps on images with so many objects, and what the last step returned."""
    heads = h.build(h.tiny_cfg(**HEADS[name]))
    heads.observers += [make(heads) for make in observers]
    targets = h.targets(objects)
    for seed in range(steps):
        result = h.train_step(heads, h.features(len(objects)), h.proposals(targets), targets, seed=seed)
    return heads, result


def expected(heads, view, p):
    stage, targets, labeled, samples, pooled, predictions = view
    predictor, deltas, predicted = heads.branches[p].predictor(stage), predictions[p][1], None
    weights = predictor.box2box_transform.weights
    with torch.no_grad():
        has_own_regressor = hasattr(heads.iou_branch, "regressor")
        if has_own_regressor:
            features = heads.iou_branch.iou_head(pooled[p]).flatten(start_dim=1)
            deltas = heads.iou_branch.regressor[0](features)
            predicted = heads.iou_branch.iou_predictor[0](features)[:, 0].sigmoid().tolist()
        main = heads.main_branch
        own = heads.branches[p].predict(pooled[main], stage)[0].tolist()
    other = [] if p == main else zip(own, predictions[main][0].tolist())
    rows = predictions[p][0].tolist(), deltas.tolist()
    settings = weights, heads.num_classes, other, not has_own_regressor, predicted
    return count_step(targets, labeled[p], samples[p], *rows, *settings)


@pytest.mark.parametrize("name", HEADS)
def test_counts_are_those_of_the_scalar_reference(name):
    heads, _ = train(name, (3, 0, 35), [ImbalanceRecorder, lambda heads: h.Watcher()], steps=2)
    recorder, watcher = heads.observers
    totals = {}
    for view in watcher.views:
        for p in range(len(heads.branches)):
            for field, values in expected(heads, view, p).items():
                before = totals.setdefault((view.stage, p), {}).get(field, [0.0] * len(values))
                totals[view.stage, p][field] = [a + b for a, b in zip(before, values)]
    assert set(recorder.counts) == set(totals)
    for key, fields in totals.items():
        assert set(fields) == {*FIELDS, *CLASS_FIELDS}
        for field, values in fields.items():
            assert recorder.counts[key][field].tolist() == pytest.approx(values, rel=1e-4, abs=1e-4), (key, field)
    first = totals[0, 0]
    assert first["images"] == [6] and sum(first["positive_ious"]) > 0 and first["appended_gt"][0] > 0
    assert first["images_by_objects"][30] == 2, "35 objects are in the last entry"
    assert (sum(first["box_loss"]) > 0) == (name != "IoU branch") == (sum(first["predicted_ious"]) == 0)
    assert sum(first["objects_by_positives"]) == sum(first["class_objects"]) == 76


@pytest.mark.parametrize("name", HEADS)
def test_training_is_bit_identical(name):
    _, (losses, gradients, _, logged, draw) = train(name, (3, 5))
    _, (recorded_losses, recorded_gradients, _, recorded_log, recorded_draw) = train(name, (3, 5), [ImbalanceRecorder])
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in recorded_losses.items()}
    assert set(gradients) == set(recorded_gradients)
    assert all(torch.equal(gradients[k], recorded_gradients[k]) for k in gradients)
    assert logged == recorded_log and torch.equal(draw, recorded_draw)


@pytest.mark.parametrize("name", HEADS)
def test_images_without_objects(name):
    heads, _ = train(name, (0, 0), [ImbalanceRecorder])
    recorded = heads.observers[0].counts
    assert len(recorded) == heads.stages.num_train * len(heads.branches)
    for counts in recorded.values():
        assert torch.isfinite(counts.values).all()
        assert all(counts[field].sum().item() == 0 for field in ("positives", "positive_ious", "box_loss"))
        assert counts["images_by_objects"][0].item() == 2


BUCKETS = {**_named("BOX_CODER", "Buckets"), **_named("BOX_LOSS", "BucketLoss")}
LOSSES = {
    **{name: {"MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE": name} for name in ("giou", "diou", "ciou")},
    "boxes, quality": {**_named("BOX_LOSS", "EIoU"), **_named("CLS_LOSS", "QualityFocal")},
    "variances, focal": {**_named("BOX_LOSS", "KLLoss"), **_named("CLS_LOSS", "FocalLoss", GAMMA=1.0)},
    "learned": {**_named("BOX_LOSS", "GHMR"), **_named("CLS_LOSS", "EQLv2")},
    "learned, agnostic": {**_named("BOX_LOSS", "GHMR"), **_named("CLS_LOSS", "GHMC"), **HEADS["class-agnostic"]},
    "buckets": BUCKETS,
    "buckets, agnostic": {**BUCKETS, **HEADS["class-agnostic"]},
    "weighed": _named("SAMPLE_WEIGHTS", "PISA"),
    "weighed, all proposals": {**_named("SAMPLE_WEIGHTS", "SamplingFree"), **_named("BOX_LOSS", "GHMR")},
    "chosen": _named("SAMPLE_WEIGHTS", "OHEM"),
}


@pytest.mark.parametrize("settings", LOSSES.values(), ids=LOSSES)
def test_the_losses_that_are_counted_are_those_of_the_heads(settings):
    """In the second step those that learn have learned; watching teaches them nothing."""
    heads, plain = (h.build(h.tiny_cfg(**settings), scale=1.0) for _ in range(2))
    recorder = ImbalanceRecorder(heads)
    heads.observers.append(recorder)
    targets = h.targets((4, 0, 4))
    for seed in range(2):
        recorder.reset()
        results = []
        for each in (heads, plain):
            each.proposal_append_gt = False
            results.append(h.train_step(each, h.features(3), h.proposals(targets), targets, seed=seed)[:2])
            for module in [m for m in each.modules() if hasattr(m, "end_iteration")]:
                module.end_iteration(seed)
        torch.testing.assert_close(*results, rtol=0, atol=0)
        (counts,) = recorder.counts.values()
        rois = (counts["positives"] + counts["negatives"]).item()
        for name, field in (("loss_box_reg", "box_loss"), ("loss_cls", "cls_loss")):
            assert results[0][0][name].item() == pytest.approx(counts[field].sum().item() / rois, rel=1e-5)


def test_errors_have_the_units_of_deltas_where_buckets_are_predicted():
    targets, errors = h.targets((3, 5)), []
    for settings in ({}, BUCKETS):
        heads = h.build(h.tiny_cfg(**settings))
        recorder = ImbalanceRecorder(heads)
        heads.observers.append(recorder)
        h.train_step(heads, h.features(2), h.proposals(targets), targets)
        errors.append(recorder.counts[0, 0]["best_error_sum"].item())
    assert errors[0] == pytest.approx(errors[1]) and errors[0] > 0


def test_a_new_window_starts_empty():
    heads, _ = train("standard", (3,), [ImbalanceRecorder])
    (recorder,) = heads.observers
    recorder.reset()
    assert recorder.counts[0, 0].values.abs().sum() == 0


def test_histogram_bins():
    counts = ImbalanceCounts("cpu")
    values = torch.tensor([0.0, 0.049, 0.05, 0.999, 1.0, float("nan"), 0.5, 0.5])
    where = torch.tensor([True] * 5 + [False] * 2 + [True])
    counts.histogram("proposal_ious", values, where)
    assert {k: int(v) for k, v in enumerate(counts["proposal_ious"]) if v} == {0: 2, 1: 1, 10: 1, 19: 2}
    counts.histogram("cls_loss", values, where, torch.tensor([1.0, 2, 4, 8, 16, float("nan"), float("inf"), 32]))
    assert {k: float(v) for k, v in enumerate(counts["cls_loss"]) if v} == {0: 3, 1: 4, 10: 32, 19: 24}
    assert counts.as_lists()["proposal_ious"][:3] == [2, 1, 0]
