"""Suppressions against scalar references, numbers by hand, detectron2 at neutral settings, and all that heads may give."""

import math

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from reference import suppression as reference

from d2_balanced.modeling.registry import NMS_REGISTRY
from d2_balanced.modeling.spec import build_component
from d2_balanced.modeling.suppression import (
    BoxVoting,
    Candidates,
    IoUGuidedNMS,
    NMS,
    Predicted,
    SoftNMS,
    VarianceVoting,
    WeightedBoxesFusion,
)

SIZES = [(96, 128), (60, 100), (96, 128)]
K = 3


def fusion(**arguments):
    pytest.importorskip("ensemble_boxes")
    return WeightedBoxesFusion(**arguments)


ALL = {
    "NMS": NMS,
    "linear": lambda: SoftNMS("linear"),
    "gaussian": SoftNMS,
    "BoxVoting": BoxVoting,
    "VarianceVoting": VarianceVoting,
    "Soft-NMS and VarianceVoting": lambda: VarianceVoting(method="gaussian"),
    "IoUGuidedNMS": IoUGuidedNMS,
    "WeightedBoxesFusion": fusion,
}
each = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


def batch(num=40, agnostic=False, classes=K, seed=0, images=3):
    """Boxes, scores, image sizes and what heads predict beside them, for some images; boxes may leave their image."""
    g = torch.Generator().manual_seed(seed)
    boxes, scores, ious, variances = [], [], [], []
    for _ in range(images):
        centers = 30 + 40 * torch.rand(num, 1 if agnostic else classes, 2, generator=g).round(decimals=1)
        halves = 8 + 20 * torch.rand(num, centers.shape[1], 2, generator=g)
        boxes.append(torch.cat([centers - halves, centers + halves], dim=2).flatten(1))
        scores.append(torch.rand(num, classes + 1, generator=g))
        ious.append(torch.rand(num, generator=g))
        variances.append(0.1 + 10 * torch.rand(num, boxes[0].shape[1], generator=g))
    return boxes, scores, SIZES[:images], Predicted(0.3, 0.5, 20, ious, variances)


def one_class(boxes, scores, nms, nms_thresh=0.5, ious=None, variances=None):
    """Detections of one image and one class, everything above the threshold."""
    scores = torch.tensor(scores)
    given = Predicted(
        0.0, nms_thresh, -1,
        None if ious is None else [torch.tensor(ious)],
        None if variances is None else [torch.tensor(variances)],
    )  # fmt: skip
    return nms([torch.tensor(boxes)], [torch.stack([scores, 1 - scores], dim=1)], [(1000, 1000)], given)[0]


def detectron2(boxes, scores, sizes, predicted):
    return fast_rcnn_inference(boxes, scores, sizes, *predicted[:3])[0]


def assert_same(want, got, **tolerance):
    assert [len(image) for image in want] == [len(image) for image in got]
    for a, b in zip(want, got):
        assert a.image_size == b.image_size and a.get_fields().keys() == b.get_fields().keys()
        for want, got in ((a.scores, b.scores), (a.pred_boxes.tensor, b.pred_boxes.tensor)):
            torch.testing.assert_close(want, got, **(tolerance or {"rtol": 0, "atol": 0}))
        assert torch.equal(a.pred_classes, b.pred_classes)


# Two boxes with an IoU of 0.6 (60 of 100), and one alone.
THREE = [[0.0, 0.0, 10.0, 8.0], [0.0, 2.0, 10.0, 10.0], [100.0, 100.0, 120.0, 110.0]]


@pytest.mark.parametrize(
    "nms, scores",
    [
        (NMS(), [0.9, 0.5]),
        (SoftNMS("hard"), [0.9, 0.5]),
        (SoftNMS("linear"), [0.9, 0.5, 0.8 * 0.4]),
        (SoftNMS("gaussian", sigma=0.5), [0.9, 0.5, 0.8 * math.exp(-0.72)]),
        (SoftNMS("gaussian", sigma=0.5, min_score=0.4), [0.9, 0.5]),
    ],
    ids=str,
)
def test_three_boxes_by_hand(nms, scores):
    found = one_class(THREE, [0.9, 0.8, 0.5], nms)
    assert found.scores.tolist() == pytest.approx(scores)
    assert found.pred_boxes.tensor.tolist() == [THREE[0], THREE[2], THREE[1]][: len(scores)]


def test_the_box_that_fits_best_takes_over_the_best_score():
    found = one_class(THREE, [0.9, 0.8, 0.5], IoUGuidedNMS(), ious=[0.6, 0.7, 0.1])
    assert found.pred_boxes.tensor.tolist() == [THREE[1], THREE[2]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])


def test_votes_by_hand():
    weight = math.exp(-(0.4**2) / 0.08)  # exp(-2)
    found = one_class(THREE, [0.9, 0.8, 0.5], BoxVoting(vote_sigma=0.08))
    y1, y2 = (0 + weight * 2) / (1 + weight), (8 + weight * 10) / (1 + weight)
    assert found.pred_boxes.tensor.tolist() == [pytest.approx([0, y1, 10, y2], abs=1e-5), THREE[2]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    variances = [[1.0, 4.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0] * 4]
    y1 = 2 * weight / (1 / 4 + weight)
    found = one_class(THREE, [0.9, 0.8, 0.5], VarianceVoting(vote_sigma=0.08), variances=variances)
    assert found.pred_boxes.tensor.tolist() == [pytest.approx([0, y1, 10, y2], abs=1e-5), THREE[2]]


def test_fusion_by_hand():
    found = one_class(THREE, [0.9, 0.8, 0.5], fusion(iou_thresh=0.55))
    mean = (0.9 * 0 + 0.8 * 2) / 1.7
    assert found.pred_boxes.tensor.tolist() == [pytest.approx([0, mean, 10, mean + 8], abs=1e-4), THREE[2]]
    assert found.scores.tolist() == pytest.approx([0.85, 0.5])
    assert one_class(THREE, [0.9, 0.8, 0.5], fusion(conf_type="max")).scores.tolist() == pytest.approx([0.9, 0.5])


def test_fusion_of_two_detectors_counts_who_agrees():
    """Two agree: the mean. One is alone: half of its score."""
    scores = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]])
    predicted = Predicted(0.0, 0.5, -1, sources=[torch.tensor([0, 1, 1])])
    (found,) = fusion()([torch.tensor(THREE)], [scores], [(200, 200)], predicted)
    assert found.scores.tolist() == pytest.approx([0.8, 0.25])
    (found,) = fusion(weights=[3.0, 1.0])([torch.tensor(THREE)], [scores], [(200, 200)], predicted)
    assert found.scores.tolist() == pytest.approx([(3 * 0.9 + 0.7) / 4, 0.5 / 4])


def test_weights_of_detectors_say_that_one_detector_has_no_use_for_them(caplog):
    plain = one_class(THREE, [0.9, 0.8, 0.5], fusion())
    weighted = one_class(THREE, [0.9, 0.8, 0.5], fusion(weights=[3.0, 1.0, 7.0]))
    assert_same([plain], [weighted])
    assert "weights=[3.0, 1.0, 7.0] (MODEL.BALANCED.NMS.WEIGHTS) are not used" in caplog.text


def groups_of(boxes, scores, sizes, predicted):
    """``{(image, class): (rows, boxes, scores, ious, variances)}`` of the candidates, as lists."""
    found = {}
    for i, (image_boxes, image_scores, (height, width)) in enumerate(zip(boxes, scores, sizes)):
        for c in range(image_scores.shape[1] - 1):
            rows = [r for r in range(len(image_boxes)) if image_scores[r, c] > predicted.score_thresh]
            columns = slice(0, 4) if image_boxes.shape[1] == 4 else slice(4 * c, 4 * c + 4)
            limit = torch.tensor([width, height, width, height])
            clipped = image_boxes[rows][:, columns].clamp(min=0).minimum(limit)
            found[i, c] = (
                clipped.tolist(), image_scores[rows, c].tolist(), predicted.ious[i][rows].tolist(),
                predicted.variances[i][rows][:, columns].tolist(),
            )  # fmt: skip
    return found


def compare(nms, expected, given):
    """Detections against ``expected(boxes, scores, ious, variances) -> [(score, box)]`` of every class alone."""
    boxes, scores, sizes, predicted = given
    want = [[] for _ in boxes]
    for (image, c), candidates in groups_of(*given).items():
        want[image] += [(score, c, box) for score, box in expected(*candidates)]
    got = nms(boxes, scores, sizes, predicted)
    for image, found in zip(want, got):
        image.sort(key=lambda each: -each[0])
        image = image[: predicted.topk_per_image]
        assert len(image) == len(found) == predicted.topk_per_image
        assert found.scores.tolist() == pytest.approx([score for score, _, _ in image], rel=1e-5)
        assert found.pred_classes.tolist() == [c for _, c, _ in image]
        want_boxes = torch.tensor([box for _, _, box in image])
        torch.testing.assert_close(found.pred_boxes.tensor, want_boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("agnostic", [False, True], ids=["class-specific", "agnostic"])
@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
def test_soft_nms_is_the_scalar_one(method, agnostic):
    def expected(boxes, scores, *_):
        return [(score, boxes[i]) for i, score in reference.soft_nms(boxes, scores, method, 0.4, 0.5, 0.01).items()]

    compare(SoftNMS(method, sigma=0.4, min_score=0.01), expected, batch(agnostic=agnostic))


def test_soft_nms_is_that_of_ensemble_boxes():
    library = pytest.importorskip("ensemble_boxes.ensemble_boxes_nms")
    boxes, scores, sizes, predicted = batch(num=80, agnostic=True, classes=1, images=1)
    candidates = Candidates.above_threshold(boxes, scores, sizes, predicted)
    for number, method in ((1, "linear"), (2, "gaussian")):
        nms = SoftNMS(method, sigma=0.5, min_score=0.05)
        (found,) = nms(boxes, scores, sizes, predicted._replace(topk_per_image=-1))
        theirs = candidates.scores.double().numpy()
        kept = library.cpu_soft_nms_float(candidates.boxes.double().numpy(), theirs, 0.5, 0.5, 0.05, number)
        theirs = theirs[theirs > 0.05]  # they decay, and move, in place
        order = (-theirs).argsort()
        torch.testing.assert_close(found.scores.double(), torch.tensor(theirs[order]), rtol=1e-5, atol=1e-6)
        assert torch.equal(found.pred_boxes.tensor, candidates.boxes[kept[order]])


@pytest.mark.parametrize("agnostic", [False, True], ids=["class-specific", "agnostic"])
def test_iou_guided_nms_is_the_scalar_one(agnostic):
    def expected(boxes, scores, ious, _):
        return [(score, boxes[i]) for i, score in reference.iou_guided(boxes, scores, ious, 0.5).items()]

    compare(IoUGuidedNMS(), expected, batch(agnostic=agnostic))


@pytest.mark.parametrize("method", ["hard", "gaussian"])
def test_variance_voting_is_the_scalar_one(method):
    def expected(boxes, scores, _, variances):
        kept = reference.soft_nms(boxes, scores, method, 0.5, 0.5, 0.001)
        return [(score, reference.vote(boxes, variances, i, 0.05)) for i, score in kept.items()]

    compare(VarianceVoting(vote_sigma=0.05, method=method), expected, batch())


NEUTRAL = {
    "hard": (SoftNMS("hard", min_score=0.0), 0.5),
    "sigma to infinity": (SoftNMS(sigma=1e30, min_score=0.0), 1.0),
    "sigma to 0": (SoftNMS(sigma=1e-30, min_score=0.0), 0.0),
    "IoU-guided by score": (IoUGuidedNMS(iou_power=0.0, cls_power=1.0), 0.5),
    "nobody votes": (BoxVoting(vote_sigma=1e-30), 0.5),
    "no variance votes": (VarianceVoting(vote_sigma=1e-30), 0.5),
}


@pytest.mark.parametrize("nms, thresh", NEUTRAL.values(), ids=NEUTRAL)
@pytest.mark.parametrize("agnostic", [False, True], ids=["class-specific", "agnostic"])
def test_neutral_settings_are_detectron2_to_the_bit(nms, thresh, agnostic):
    boxes, scores, sizes, predicted = batch(agnostic=agnostic)
    given = boxes, scores, sizes, predicted._replace(nms_thresh=thresh, topk_per_image=-1)
    assert_same(detectron2(*given), nms(*given))
    given = (*given[:3], given[3]._replace(topk_per_image=7))
    assert_same(detectron2(*given), nms(*given))


def test_fusion_of_nothing_is_detectron2_to_the_bit():
    boxes, scores, sizes, predicted = batch()
    given = boxes, scores, sizes, predicted._replace(nms_thresh=1.0)
    assert_same(detectron2(*given), fusion(iou_thresh=1.0)(*given))


@each
def test_detections_of_an_image_do_not_depend_on_the_others(make):
    boxes, scores, sizes, predicted = batch()
    nms = make()
    together = nms(boxes, scores, sizes, predicted)
    for i, want in enumerate(together):
        alone = predicted._replace(ious=predicted.ious[i : i + 1], variances=predicted.variances[i : i + 1])
        assert_same([want], nms(boxes[i : i + 1], scores[i : i + 1], sizes[i : i + 1], alone), rtol=1e-6, atol=1e-5)


@each
@pytest.mark.parametrize("agnostic", [False, True], ids=["class-specific", "agnostic"])
def test_nasty_batches(make, agnostic):
    """An image without boxes; one with all below the threshold; boxes and scores that are not finite, which detectron2
    drops; one class; one box; boxes without area; equal boxes."""
    nms = make()
    boxes, scores, sizes, predicted = batch(agnostic=agnostic)
    nothing = [each[:0] for each in (boxes[0], scores[0], predicted.ious[0], predicted.variances[0])]
    boxes[0], scores[0], predicted.ious[0], predicted.variances[0] = nothing
    scores[1] = scores[1] * 0.1
    boxes[2][3, 1], boxes[2][4, 2], scores[2][5, 0] = math.nan, math.inf, math.nan
    boxes[2][7] = boxes[2][6]
    boxes[2][8, 2] = boxes[2][8, 0]
    found = nms(boxes, scores, sizes, predicted)
    assert [len(image) for image in found] == [0, 0, 20]
    for image, size in zip(found, sizes):
        assert image.image_size == size and image.pred_boxes.tensor.shape == (len(image), 4)
        assert image.pred_boxes.tensor.isfinite().all() and image.scores.isfinite().all()
        assert image.scores.tolist() == sorted(image.scores.tolist(), reverse=True)
        assert image.pred_classes.dtype == torch.int64 and ((image.pred_classes >= 0) & (image.pred_classes < K)).all()
    inside = found[2].pred_boxes.tensor.clamp(min=0).minimum(torch.tensor([128.0, 96.0, 128.0, 96.0]))
    torch.testing.assert_close(found[2].pred_boxes.tensor, inside)  # a mean of boxes inside, but for rounding
    finite = torch.ones(40, dtype=torch.bool)
    finite[3:6] = False
    cut = predicted._replace(ious=[predicted.ious[2][finite]], variances=[predicted.variances[2][finite]])
    assert_same(found[2:], nms([boxes[2][finite]], [scores[2][finite]], sizes[2:], cut))
    alone = batch(num=1, agnostic=agnostic, classes=1, images=1)
    (single,) = nms(*alone[:3], alone[3]._replace(score_thresh=-1.0))
    assert len(single) == 1 and single.pred_classes.tolist() == [0]


@each
def test_topk_below_0_keeps_all(make):
    boxes, scores, sizes, predicted = batch()
    best = make()(boxes, scores, sizes, predicted)
    everything = make()(boxes, scores, sizes, predicted._replace(topk_per_image=-1))
    for some, more in zip(best, everything):
        assert len(some) == 20 < len(more) and torch.equal(some.scores, more.scores[:20])


def test_many_candidates_are_decided_in_several_rounds():
    """More of one class than are decided between two looks at what is left."""
    boxes, scores, sizes, predicted = batch(num=150, agnostic=True, classes=1, images=2)
    given = boxes, scores, sizes, predicted._replace(topk_per_image=-1, nms_thresh=0.9)
    assert_same(detectron2(*given), SoftNMS("hard", min_score=0.0)(*given))


def test_variances_that_say_nothing_do_not_spoil_a_box():
    variances = [[math.inf] * 4, [math.nan] * 4, [0.0] * 4]
    found = one_class(THREE, [0.9, 0.8, 0.5], VarianceVoting(), variances=variances)
    assert found.pred_boxes.tensor.tolist() == [THREE[0], THREE[2]]


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("SoftNMS", {"METHOD": "cubic"}, "method must be one of"),
        ("SoftNMS", {"SIGMA": 0.0}, "sigma must be above 0"),
        ("SoftNMS", {"MIN_SCORE": 1.0}, "min_score must be 0 or more and below 1"),
        ("BoxVoting", {"VOTE_SIGMA": 0.0}, "vote_sigma must be above 0"),
        ("IoUGuidedNMS", {"IOU_POWER": -1.0}, "iou_power must be 0 or more"),
        ("IoUGuidedNMS", {"IOU_POWER": 0.0}, "both 0"),
        ("WeightedBoxesFusion", {"IOU_THRESH": 1.5}, "iou_thresh must be from 0 to 1"),
        ("WeightedBoxesFusion", {"CONF_TYPE": "mean"}, "conf_type must be one of"),
        ("WeightedBoxesFusion", {"WEIGHTS": [1.0, 0.0]}, "weights must be above 0"),
        ("SoftNMS", {"SIGMAS": 0.5}, "no argument 'sigmas'"),
    ],
)
def test_what_a_constructor_refuses(name, arguments, said):
    with pytest.raises(ValueError, match=f"MODEL.BALANCED.NMS.*{said}"):
        build_component(NMS_REGISTRY, {"NAME": name, **arguments}, "MODEL.BALANCED.NMS")


def test_fusion_without_the_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ensemble_boxes", None)
    with pytest.raises(ValueError, match=r"ensemble-boxes: pip install 'd2_balanced\[fusion\]'"):
        WeightedBoxesFusion()


def test_only_nms_can_be_traced():
    boxes, scores, sizes, predicted = batch(images=1)
    for nms in (NMS(), SoftNMS()):
        def detect(boxes, scores):
            return nms([boxes], [scores], sizes, predicted)[0].scores  # noqa: B023

        if type(nms) is NMS:
            assert len(torch.jit.trace(detect, (boxes[0], scores[0]))(boxes[0], scores[0])) > 0
        else:
            with pytest.raises(NotImplementedError, match="SoftNMS cannot be traced"):
                torch.jit.trace(detect, (boxes[0], scores[0]))
