"""Suppressions inside the ROI heads: along every axis, on one set of weights, with masks, and where one is refused."""

import pytest
import roi_heads_tools as h
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

from d2_balanced.modeling.roi_heads.check_axes import check_axes
from d2_balanced.modeling.suppression import NMS
from d2_balanced.utils.errors import Refusal

KL = {"MODEL__BALANCED__BOX_LOSS": {"NAME": "KLLoss"}}
MASKS = {"MODEL__MASK_ON": True}
AXES = {
    **h.AXES,
    "IoU branch": h.IOU_BRANCH,
    "cascade of branches with IoU branch": {**h.CASCADE, **h.AGNOSTIC, **h.BRANCHES, **h.IOU_BRANCH},
    "masks": MASKS,
}


def nms(name, **arguments):
    return {"MODEL__BALANCED__NMS": {"NAME": name, **arguments}}


def detections(settings, state=None):
    heads = h.build(h.tiny_cfg(**settings))
    if state is not None:
        heads.load_state_dict(state, strict=True)
    targets = h.targets((4, 7))
    return h.detect(heads, h.features(2), h.proposals(targets)), heads


def assert_same(want, got):
    for a, b in zip(want, got):
        assert len(a) == len(b) > 0 and a.get_fields().keys() == b.get_fields().keys()
        for name, value in a.get_fields().items():
            same = getattr(value, "tensor", value), getattr(b.get(name), "tensor", b.get(name))
            torch.testing.assert_close(*same, rtol=0, atol=0)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_every_head_takes_another_suppression_on_the_same_weights(axes):
    """Hard Soft-NMS is NMS, to the bit, whatever makes boxes and scores; with decay the detections are others."""
    plain, heads = detections(axes)
    hard, _ = detections({**axes, **nms("SoftNMS", METHOD="hard", MIN_SCORE=0.0)}, heads.state_dict())
    assert_same(plain, hard)
    soft, _ = detections({**axes, **nms("SoftNMS")}, heads.state_dict())
    assert any(len(a) != len(b) or not torch.equal(a.scores, b.scores) for a, b in zip(plain, soft))
    for image in soft:
        assert not axes.get("MODEL__MASK_ON") or image.pred_masks.shape[0] == len(image)
        assert len(image) <= 100 and image.scores.isfinite().all()


@pytest.mark.parametrize("name", ["NMS", "SoftNMS"])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_at_minus_1_all_detections_are_kept(axes, name):
    few, heads = detections({**axes, **nms(name), "TEST__DETECTIONS_PER_IMAGE": 5})
    every, _ = detections({**axes, **nms(name), "TEST__DETECTIONS_PER_IMAGE": -1}, heads.state_dict())
    assert all(len(image) > 6 for image in every)
    assert_same(few, [image[:5] for image in every])


BUCKETS = {"MODEL__BALANCED__BOX_CODER": {"NAME": "Buckets"}, "MODEL__BALANCED__BOX_LOSS": {"NAME": "BucketLoss"}}


@pytest.mark.parametrize("coordinates", ["corners", "deltas", "buckets"])
@pytest.mark.parametrize("agnostic", [{}, h.AGNOSTIC], ids=["class-specific", "agnostic"])
def test_without_any_proposal_nothing_is_found(coordinates, agnostic):
    """An RPN may leave none, which are all smaller than MIN_SIZE or not finite."""
    loss = {"MODEL__BALANCED__BOX_LOSS": {"NAME": "KLLoss", "COORDINATES": coordinates}}
    heads = h.build(h.tiny_cfg(**(BUCKETS if coordinates == "buckets" else loss), **agnostic, **nms("SoftNMS")))
    found = h.detect(heads, h.features(2), [image[:0] for image in h.proposals(h.targets((4, 7)))])
    assert [len(image) for image in found] == [0, 0] and found[0].pred_boxes.tensor.shape == (0, 4)


def test_of_branches_that_do_not_all_predict_variances_none_are_joined():
    """In a LazyConfig every branch may have a loss of its own."""

    def built(name, without):
        heads = h.build(h.tiny_cfg(**h.BRANCHES, **KL, **nms(name, JOINT=True)))
        predictor = heads.branches[without].box_predictor
        predictor.box_loss = predictor.bbox_log_variance = None
        return heads

    for without in (0, 1):
        targets = h.targets((4, 7))
        assert all(len(image) for image in h.detect(built("SoftNMS", without), h.features(2), h.proposals(targets)))
        with pytest.raises(Refusal, match="VarianceVoting.*box_loss=NoneType.*nothing predicts variances"):
            check_axes(built("VarianceVoting", without))
    check_axes(h.build(h.tiny_cfg(**h.BRANCHES, **KL, **nms("VarianceVoting"))))


def test_iou_guided_nms_gets_class_scores_and_the_ious_of_the_branch():
    powerless = {"MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch", "IOU_POWER": 0.0}}
    by_score, heads = detections(powerless)
    guided, _ = detections({**h.IOU_BRANCH, **nms("IoUGuidedNMS", IOU_POWER=0.0, CLS_POWER=1.0)}, heads.state_dict())
    assert_same(by_score, guided)
    guided, heads = detections({**h.IOU_BRANCH, **nms("IoUGuidedNMS")}, heads.state_dict())
    product, _ = detections(h.IOU_BRANCH, heads.state_dict())
    assert not torch.equal(guided[0].scores[:10], product[0].scores[:10])


@pytest.mark.parametrize("axes", [{}, h.AGNOSTIC, {**h.CASCADE, **h.AGNOSTIC}, h.BRANCHES], ids=str)
def test_variance_voting_gets_the_variances_of_the_heads(axes):
    plain, heads = detections({**KL, **axes})
    still, _ = detections({**KL, **axes, **nms("VarianceVoting", VOTE_SIGMA=1e-30)}, heads.state_dict())
    assert_same(plain, still)
    moved, _ = detections({**KL, **axes, **nms("VarianceVoting", VOTE_SIGMA=0.1)}, heads.state_dict())
    alike, _ = detections({**KL, **axes, **nms("BoxVoting", VOTE_SIGMA=0.1)}, heads.state_dict())
    boxes = [[image.pred_boxes.tensor for image in images] for images in (plain, moved, alike)]
    assert not torch.equal(boxes[0][0], boxes[1][0]) and not torch.equal(boxes[1][0], boxes[2][0])


@pytest.mark.parametrize("axes", [{}, {**h.CASCADE, **h.AGNOSTIC}], ids=["one stage", "cascade"])
def test_joint_nms_mixes_what_every_branch_finds_alone(axes):
    axes = {**axes, **h.BRANCHES}
    joint, heads = detections({**axes, **nms("NMS", JOINT=True)})
    alone = []
    for branch in (0, 1):
        heads.test_branches = [branch]
        with torch.no_grad():
            targets = h.targets((4, 7))
            alone.append(heads.box_candidates(h.features(2), h.proposals(targets)))
    boxes, scores = ([torch.cat(image) for image in zip(*[getattr(f, k) for f in alone])] for k in ("boxes", "scores"))
    predictor = heads.box_predictor if not axes.get("MODEL__BALANCED__STAGES") else heads.box_predictor[-1]
    limits = predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image
    want = fast_rcnn_inference(boxes, scores, alone[0].image_sizes, *limits)[0]
    assert_same(want, joint)


def test_without_a_suppression_of_its_own_it_is_nms():
    assert type(h.build(h.tiny_cfg()).nms) is NMS
    assert not any("nms" in key for key in h.build(h.tiny_cfg(**nms("SoftNMS"))).state_dict())


REFUSED = {
    "no IoU branch": ({**nms("IoUGuidedNMS")}, "IoUGuidedNMS.*IOU_BRANCH"),
    "no IoU predictor": (
        {**nms("IoUGuidedNMS"), "MODEL__BALANCED__IOU_BRANCH": {"NAME": "IoUBranch", "PREDICT_IOU": False}},
        "IoUGuidedNMS.*IOU_BRANCH",
    ),
    "no variances": (nms("VarianceVoting"), "VarianceVoting.*BOX_LOSS"),
    "one branch": (nms("NMS", JOINT=True), "joint.*BRANCHES"),
    "one branch at inference": (
        {**nms("SoftNMS", JOINT=True), **h.BRANCHES, "MODEL__BALANCED__TEST_BRANCHES": [1]}, "joint.*TEST_BRANCHES"
    ),
    "weights of other branches": (
        {**nms("WeightedBoxesFusion", JOINT=True, WEIGHTS=[1.0, 2.0, 3.0]), **h.BRANCHES}, "NMS.WEIGHTS.*give 2, or none"
    ),
}  # fmt: skip


@pytest.mark.parametrize("settings, said", REFUSED.values(), ids=REFUSED)
def test_a_suppression_that_does_not_get_what_it_wants_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        h.build(h.tiny_cfg(**settings))
