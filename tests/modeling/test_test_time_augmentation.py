"""Test-time augmentation is detectron2's to the bit on its own detectors, and what it says with every head of ours."""

import pytest
import torch
from d2_balanced.config import load_yaml
from d2_balanced.modeling.test_limits import limits_of
from d2_balanced.modeling.test_time_augmentation import AugmentedRCNN
from d2_balanced.utils.errors import ConfigError, Refusal
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances
from tiny_runs import TINY, quick_config

SIZES = {"min_sizes": [40, 64], "max_size": 96, "flip": True}
WORDS = [
    *TINY, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.1",
    "TEST.DETECTIONS_PER_IMAGE", "6", "TEST.AUG.MIN_SIZES", "(40, 64)", "TEST.AUG.MAX_SIZE", "96",
]  # fmt: skip
_B = "MODEL.BALANCED"
FLOW = ["MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.NAME", "FlowMaskHead", f"{_B}.MASKS.NAME", "InterleavedMasks"]
EVERY = ["TEST.DETECTIONS_PER_IMAGE", "-1"]
AGNOSTIC = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"]
HEADS = {
    "boxes": [],
    "masks": ["MODEL.MASK_ON", "True"],
    "cascade": [*AGNOSTIC, "MODEL.MASK_ON", "True", f"{_B}.STAGES.NAME", "CascadeStages"],
    "loop with masks": [*AGNOSTIC, *FLOW, f"{_B}.STAGES.NAME", "RecursiveStages"],
    "branches": [f"{_B}.BRANCHES", "[{POSITIVE_FRACTION: 0.5}, {POSITIVE_FRACTION: 0.75}]"],
    "IoU branch": [f"{_B}.IOU_BRANCH.NAME", "IoUBranch"],
    "IoU branch without EFO": [f"{_B}.IOU_BRANCH.NAME", "IoUBranch", f"{_B}.IOU_BRANCH.EFO", "False"],
    "mask scoring": ["MODEL.MASK_ON", "True", f"{_B}.MASK_IOU_HEAD.NAME", "MaskIoUHead"],
}


def model_of(*words):
    """A detector with random weights, which are large enough for boxes that move and scores that differ; its config."""
    cfg = load_yaml(quick_config("faster_rcnn"), [*WORDS, *words])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        for name, parameter in model.roi_heads.named_parameters():
            if any(part in name for part in ("predictor", "regressor")) and "weight" in name:
                parameter.normal_(std=0.1 if "regressor" in name else 0.3)
    return model, cfg


def image(seed=0, size=(48, 72), original=(60, 90)):
    pixels = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return {"image": pixels, "height": original[0], "width": original[1]}


def same(first, second):
    assert first.image_size == second.image_size and set(first.get_fields()) == set(second.get_fields())
    for name, value in first.get_fields().items():
        assert torch.equal(getattr(value, "tensor", value), getattr(second.get(name), "tensor", second.get(name))), name


@pytest.mark.parametrize("plain, ours", [
    (["MODEL.ROI_HEADS.NAME", "StandardROIHeads"], []),
    (["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.MASK_ON", "True"], ["MODEL.MASK_ON", "True"]),
    (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", *AGNOSTIC, "MODEL.MASK_ON", "True"], HEADS["cascade"]),
    (["MODEL.ROI_HEADS.NAME", "StandardROIHeads", *EVERY], EVERY),
], ids=["boxes", "masks", "cascade with masks", "all detections"])  # fmt: skip
@torch.no_grad()
def test_detectron2_s_own_result_to_the_bit(plain, ours):
    detectron2_s, cfg = model_of("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", *plain)
    model, _ = model_of(*ours)
    model.load_state_dict(detectron2_s.state_dict())
    inputs = [image(0), image(1, (72, 48), (72, 48))]
    expected = GeneralizedRCNNWithTTA(cfg, detectron2_s)(inputs)
    for detector in (model, detectron2_s):
        for found, wanted in zip(AugmentedRCNN(detector, **SIZES)(inputs), expected):
            assert len(found["instances"]) > (6 if ours == EVERY else 1)
            same(found["instances"], wanted["instances"])


def by_hand(model, views, thresh, most):
    """The merged (score, class, box) of all views, which are (instances, scales, whether mirrored, width)."""
    found = []
    for instances, (x, y), mirrored, width in views:
        columns = instances.pred_boxes.tensor, instances.scores, instances.pred_classes
        for (x1, y1, x2, y2), score, label in zip(*(column.tolist() for column in columns)):
            if mirrored:
                x1, x2 = width - x2, width - x1
            found.append((score, label, (x1 / x, y1 / y, x2 / x, y2 / y)))
    kept = []
    for score, label, box in sorted(found, key=lambda each: -each[0]):
        if all(label != other or iou(box, better) <= thresh for _, other, better in kept):
            kept.append((score, label, box))
    return kept[:most]


def iou(a, b):
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / max(area - width * height, 1e-9)


@pytest.mark.parametrize("heads", HEADS)
@torch.no_grad()
def test_every_head_is_asked_in_every_view_and_merged_by_its_own_scores(heads):
    model, _ = model_of(*HEADS[heads])
    augmented = AugmentedRCNN(model, **SIZES, batch_size=1)
    given = image(size=(60, 90))
    (found,) = augmented([given])
    found = found["instances"]
    views, plain = [], []
    for view in augmented.tta_mapper(given):
        transforms = view.pop("transforms").transforms
        (instances,) = model.inference([view], do_postprocess=False)
        height, width = view["image"].shape[1:]
        mirrored = any(type(each).__name__ == "HFlipTransform" for each in transforms)
        views.append((instances, (width / 90, height / 60), mirrored, width))
        plain.append((view, mirrored))
    merged = by_hand(model, views, 0.5, 6)
    assert len(views) == 4 and 1 < len(found) == len(merged)
    assert found.pred_classes.tolist() == [label for _, label, _ in merged]
    assert found.scores.tolist() == [score for score, _, _ in merged]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([box for *_, box in merged]), atol=1e-3, rtol=1e-4)
    if "mask_scores" not in found.get_fields():
        assert heads != "mask scoring" and found.has("pred_masks") == model.roi_heads.mask_on
        return
    scores = []
    for (view, mirrored), (_, (x, y), _, width) in zip(plain, views):
        there = type(found)(view["image"].shape[1:], scores=found.scores, pred_classes=found.pred_classes)
        boxes = found.pred_boxes.tensor * torch.tensor([x, y, x, y])
        if mirrored:
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        there.pred_boxes = type(found.pred_boxes)(boxes)
        scores.append(model.inference([view], [there], do_postprocess=False)[0].mask_scores)
    torch.testing.assert_close(found.mask_scores, torch.stack(scores).mean(dim=0))


@torch.no_grad()
def test_nothing_is_found_in_an_image():
    model, _ = model_of(*HEADS["mask scoring"])
    model.roi_heads.test_predictor.test_score_thresh = 1.1
    (found,) = AugmentedRCNN(model, **SIZES)([image()])
    assert len(found["instances"]) == 0 and found["instances"].pred_masks.shape == (0, 60, 90)
    assert found["instances"].mask_scores.shape == (0,)


def test_the_model_is_as_it_was_also_after_an_error(monkeypatch):
    model, _ = model_of(*HEADS["masks"])
    augmented = AugmentedRCNN(model, **SIZES)
    assert not augmented.training

    def fails(*args, **kwargs):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(model, "inference", fails)
    with pytest.raises(RuntimeError, match="memory"):
        augmented([image()])
    assert model.roi_heads.mask_on


def test_the_limits_are_those_of_the_predictor_that_gives_the_boxes():
    assert limits_of(model_of(*HEADS["cascade"])[0])[:2] == (0.5, 6)
    model, _ = model_of(*HEADS["branches"])
    model.roi_heads.branches[1].box_predictor.test_nms_thresh = 0.3  # the most positive branch
    assert limits_of(AugmentedRCNN(model, **SIZES))[:2] == (0.3, 6)
    retinanet = build_model(load_yaml(quick_config("retinanet"), [*TINY, "MODEL.DEVICE", "cpu"]))
    assert limits_of(retinanet)[:2] == (0.5, 100)
    with pytest.raises(ConfigError, match="Linear does not say"):
        limits_of(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("config, words, told", [
    ("retinanet", [], "BalancedRetinaNet"), ("faster_rcnn", ["MODEL.KEYPOINT_ON", "True"], "MODEL.KEYPOINT_ON"),
    ("fast_rcnn", [], "MODEL.LOAD_PROPOSALS"),
])  # fmt: skip
def test_what_detectron2_s_augmentation_is_not_for_is_refused(config, words, told):
    model = build_model(load_yaml(quick_config(config), [*TINY, "MODEL.DEVICE", "cpu", *words]))
    with pytest.raises(Refusal, match=told):
        AugmentedRCNN(model, **SIZES)


def test_sizes_are_checked():
    model, _ = model_of()
    for wrong in ({"min_sizes": []}, {"min_sizes": [0]}, {"max_size": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AugmentedRCNN(model, **{**SIZES, **wrong})


@torch.no_grad()
def test_the_views_are_merged_by_the_detectors_own_suppression():
    """Soft-NMS that removes instead of decaying is NMS, also where views are merged; with decay it is not."""
    inputs = [image()]
    plain, hard, soft = (
        AugmentedRCNN(model_of(*(word for pair in settings.items() for word in pair))[0], **SIZES)(inputs)[0]["instances"]
        for settings in (
            {},
            {f"{_B}.NMS.NAME": "SoftNMS", f"{_B}.NMS.METHOD": "hard", f"{_B}.NMS.MIN_SCORE": "0.0"},
            {f"{_B}.NMS.NAME": "SoftNMS", "MODEL.ROI_HEADS.NMS_THRESH_TEST": "0.3"},
        )
    )
    same(plain, hard)
    assert not torch.equal(plain.scores, soft.scores)


def test_fusion_counts_the_views_that_agree(monkeypatch):
    """Two of four views find an object in the middle: half of the mean score. One alone: a quarter of its own."""
    pytest.importorskip("ensemble_boxes")
    model, _ = model_of(f"{_B}.NMS.NAME", "WeightedBoxesFusion", f"{_B}.NMS.WEIGHTS", "[2.0]")
    middle, corner = [20.0, 10.0, 40.0, 30.0], [0.0, 0.0, 12.0, 9.0]  # of 40 x 60 pixels

    def inference(views, *_, **__):
        found = []
        for boxes, scores in (([middle, corner], [0.6, 0.8]), ([middle], [0.4]), ([], []), ([], [])):
            found.append(Instances((40, 60), pred_boxes=Boxes(torch.tensor(boxes).view(-1, 4))))
            found[-1].scores, found[-1].pred_classes = torch.tensor(scores), torch.zeros(len(boxes), dtype=torch.int64)
        return found[: len(views)]

    monkeypatch.setattr(model, "inference", inference)
    (found,) = AugmentedRCNN(model, **SIZES, batch_size=4)([image()])
    assert found["instances"].scores.tolist() == pytest.approx([0.25, 0.2])
    assert model.roi_heads.nms.num_sources == 1 and model.roi_heads.nms.weights == [2.0]


def test_a_suppression_by_predicted_ious_does_not_merge_views():
    model, _ = model_of(f"{_B}.IOU_BRANCH.NAME", "IoUBranch", f"{_B}.NMS.NAME", "IoUGuidedNMS")
    with pytest.raises(Refusal, match="test-time augmentation.*IoUGuidedNMS"):
        AugmentedRCNN(model, **SIZES)
