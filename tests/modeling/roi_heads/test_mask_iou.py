"""Mask scoring: targets against the authors' numbers (golden file 8) and a scalar reference, loss, scores, training."""

import copy

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from paths import shared_file
from reference import mask_iou as reference

import roi_heads_tools as h
from d2_balanced.config import ConfigError
from d2_balanced.modeling.roi_heads import InterleavedMasks, MaskIoUHead, NonLocalConvHead, NonLocalMaskIoUHead
from d2_balanced.modeling.roi_heads.mask_scoring import (
    area_ratio,
    mask_iou_losses,
    mask_iou_targets,
    masks_of_classes,
    score_masks,
)

MASKS = {"MODEL__MASK_ON": True}
SMALL = {"MODEL__BALANCED__MASK_IOU_HEAD": {"NAME": "MaskIoUHead", "CONV_DIM": 8, "FC_DIMS": [16]}}
LARGE = {"MODEL__BALANCED__MASK_IOU_HEAD": {"NAME": "NonLocalMaskIoUHead", "KERNEL_SIZE": 3}}
AGNOSTIC = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
LOOPS = {
    **MASKS, **AGNOSTIC,
    "MODEL__ROI_MASK_HEAD__NAME": "FlowMaskHead",
    "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages"},
    "MODEL__BALANCED__MASKS": {"NAME": "InterleavedMasks"},
}  # fmt: skip
HTC = {**LOOPS, "MODEL__BALANCED__STAGES": {"NAME": "CascadeStages", "RESAMPLE": True}}
LARGE_BOX_HEAD = {"MODEL__ROI_BOX_HEAD__NAME": "NonLocalConvHead"}
COMBINATIONS = {
    "mask scoring r-cnn": {**MASKS, **SMALL},
    "class-agnostic masks": {**MASKS, **SMALL, "MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK": True},
    "r3-cnn-l": {**LOOPS, **LARGE, **LARGE_BOX_HEAD},
    "r3-cnn-l, more loops at inference": {
        **LOOPS, **LARGE, "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", "NUM_TEST": 4},
    },
    "r3-cnn-l, the mean is scored": {
        **LOOPS, **LARGE, "MODEL__BALANCED__MASKS": {"NAME": "InterleavedMasks", "SCORED": "mean"},
    },
    "cascade, interleaved masks": {**HTC, **SMALL},
}  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    with np.load(shared_file("golden", "mask_iou_targets.npz"), allow_pickle=False) as data:
        arrays = {key: data[key] for key in data}
    for name in ("gt_masks", "mask_targets"):
        shape = arrays[f"{name}_shape"]
        bits = np.unpackbits(arrays[f"{name}_packed"])[: int(np.prod(shape))]
        arrays[name] = bits.reshape(shape).astype(bool)
    return {key: torch.from_numpy(value) if np.ndim(value) else value.item() for key, value in arrays.items()}


def golden_instances(golden):
    image = Instances(tuple(golden["gt_masks"].shape[1:]), proposal_boxes=Boxes(golden["boxes"]))
    image.gt_masks = BitMasks(golden["gt_masks"][golden["gt_index"]])
    image.gt_classes = torch.zeros(len(image), dtype=torch.int64)
    return image


class Given(torch.nn.Module):
    """A mask IoU head that predicts given numbers, the same for every class."""

    loss_weight = 0.5

    def __init__(self, ious, num_classes=1):
        super().__init__()
        self.ious = ious[:, None].repeat(1, num_classes) if ious.dim() == 1 else ious

    def forward(self, features, masks):
        return self.ious


def test_golden_ratios_and_targets(golden):
    image = golden_instances(golden)
    crops = image.gt_masks.crop_and_resize(golden["boxes"], 28)
    assert torch.equal(crops, golden["mask_targets"])
    ratios = area_ratio(image.gt_masks, golden["boxes"], crops)
    torch.testing.assert_close(ratios, golden["area_ratio"], atol=1e-6, rtol=0)
    targets = mask_iou_targets(golden["mask_logits"].float().sigmoid(), crops, ratios)
    expected = golden["iou_target_prob"].nan_to_num(nan=0.0)  # two empty masks: NaN there, 0 here; both are left out
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=0)


def test_golden_released_threshold_on_the_logits(golden):
    """Not what we train on; the same function at the authors' threshold gives the authors' targets."""
    image = golden_instances(golden)
    ratios = area_ratio(image.gt_masks, golden["boxes"], golden["mask_targets"])
    targets = mask_iou_targets(golden["mask_logits"].float(), golden["mask_targets"], ratios)
    torch.testing.assert_close(targets, golden["iou_target"].nan_to_num(nan=0.0), atol=1e-5, rtol=0)


def test_golden_loss(golden):
    with EventStorage():
        logits = golden["mask_logits"].float()[:, None]
        losses = mask_iou_losses(Given(golden["head_iou_pred"]), None, logits, [golden_instances(golden)])
    assert float(losses["loss_mask_iou"]) == pytest.approx(golden["loss_mse_prob"], abs=1e-5)


def test_golden_scores(golden):
    ious, labels = golden["score_mask_iou"], golden["score_label"]
    instances = Instances((10, 10), scores=golden["score_box_score"], pred_classes=labels)
    instances.pred_masks = torch.zeros(len(labels), 1, 28, 28)
    first, second = instances[:4], instances[4:]
    score_masks(Given(ious), None, [first, second])
    torch.testing.assert_close(torch.cat([first.mask_scores, second.mask_scores]), golden["score_expected"])
    assert torch.equal(first.scores, instances.scores[:4])


def test_ratios_and_targets_against_the_scalar_reference():
    generator = torch.Generator().manual_seed(0)
    bitmaps = torch.rand(12, 20, 30, generator=generator) < torch.tensor([0.0, 0.3, 1.0]).repeat(4)[:, None, None]
    boxes = [[2.7, 3.2, 9.9, 8.1], [0, 0, 30, 20], [29.5, 19.5, 30, 20], [30, 5, 30, 9], [4.2, 4.1, 4.3, 4.2]]
    boxes = torch.tensor([*boxes, [0, 20, 9, 20]]).repeat(2, 1)
    crops = torch.rand(12, 6, 6, generator=generator) < 0.5
    probabilities = torch.rand(12, 6, 6, generator=generator)
    probabilities[::5] = 0.5
    ratios = area_ratio(BitMasks(bitmaps), boxes, crops)
    expected = [reference.area_ratio(m, b) for m, b in zip(bitmaps.int().tolist(), boxes.tolist())]
    torch.testing.assert_close(ratios, torch.tensor(expected), atol=1e-6, rtol=0)
    targets = mask_iou_targets(probabilities, crops, ratios)
    scalar = [
        reference.mask_iou(*each) for each in zip(probabilities.tolist(), crops.int().tolist(), ratios.tolist())
    ]
    torch.testing.assert_close(targets, torch.tensor(scalar), atol=1e-5, rtol=0)
    assert (targets >= 0).all() and (targets <= 1).all()


def test_polygons_agree_with_bitmaps():
    """A rectangle as a polygon and as pixels, in boxes of whole pixels: ratio 1, a half, a quarter, 0."""
    polygons = PolygonMasks([[np.array([4.0, 4, 20, 4, 20, 12, 4, 12])]] * 4)
    boxes = torch.tensor([[0.0, 0, 32, 16], [4, 4, 12, 12], [4, 4, 12, 8], [22, 2, 30, 10]])
    bitmap = torch.zeros(4, 24, 40, dtype=torch.bool)
    bitmap[:, 4:12, 4:20] = True
    for masks in (polygons, BitMasks(bitmap)):
        ratios = area_ratio(masks, boxes, masks.crop_and_resize(boxes, 16))
        torch.testing.assert_close(ratios, torch.tensor([1.0, 0.5, 0.25, 0.0]), atol=1e-5, rtol=0)


def test_a_perfect_mask_of_half_the_object_has_iou_one_half():
    crops = torch.ones(1, 4, 4, dtype=torch.bool)
    assert mask_iou_targets(crops.float(), crops, torch.tensor([0.5])).item() == pytest.approx(0.5, abs=1e-6)


def test_masks_of_the_right_class():
    logits = torch.arange(6.0).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    assert masks_of_classes(logits, torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [2.0, 3.0]
    assert masks_of_classes(logits[:, :1], torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [0.0, 3.0]


def empty_masks(objects):
    for image in objects:
        image.gt_masks = BitMasks(torch.zeros(len(image), *h.IMAGE_SIZE, dtype=torch.bool))
    return objects


BATCHES = {
    "objects": lambda: h.targets((4, 7), masks=True),
    "one image without objects": lambda: h.targets((0, 5), masks=True),
    "no objects": lambda: h.targets((0, 0), masks=True),
    "all masks empty": lambda: empty_masks(h.targets((3, 2), masks=True)),
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_trains_with_finite_gradients_everywhere(name, kind):
    heads, objects = h.build(h.tiny_cfg(**COMBINATIONS[name])), BATCHES[kind]()
    losses, gradients, _, _, _ = h.train_step(heads, h.features(2), h.proposals(objects), objects)
    scored = [key for key in losses if key.startswith("loss_mask_iou")]
    assert len(scored) == 1, "the last stage's masks are scored, and no others"
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert {n for n, p in heads.named_parameters()} <= gradients.keys(), "unused parameters break DDP"
    moved = any(g.abs().sum() > 0 for n, g in gradients.items() if n.startswith("mask_iou_head."))
    assert moved == (kind in ("objects", "one image without objects")) == bool(losses[scored[0]] > 0)


def test_no_foreground_in_a_later_loop():
    """Thresholds just below 1 and no appended ground truth: loops two and three have nothing to learn masks from."""
    stages = {"NAME": "RecursiveStages"}
    cfg = h.tiny_cfg(**{**COMBINATIONS["r3-cnn-l"], "MODEL__BALANCED__STAGES": stages})
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS = (0.5, 0.9999, 0.9999)
    cfg.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT = False
    objects = h.targets((4, 7), masks=True)
    losses, gradients, _, _, _ = h.train_step(h.build(cfg), h.features(2), h.proposals(objects), objects)
    assert losses["loss_mask_stage2"] == 0 and losses["loss_mask_iou_stage2"] == 0 and losses["loss_cls_stage2"] > 0
    assert all(torch.isfinite(g).all() for g in gradients.values())


def scored_masks(heads, pooled, found, classes):
    """The masks that the IoU head is to be asked about: those of the last stage, or the mean, which are given."""
    if getattr(heads.mask_branch, "scored", "mean") == "mean":
        return torch.cat([d.pred_masks for d in found])
    features = None
    for k in range(heads.stages.num_test):
        head = heads.mask_head[k] if isinstance(heads.mask_head, torch.nn.ModuleList) else heads.mask_head
        features = head.features(pooled, features)
    return head.predict(features).sigmoid()[torch.arange(len(classes)), classes][:, None]


@pytest.mark.parametrize("scored", ["last", "mean"])
def test_the_iou_head_trains_on_the_masks_that_it_is_asked_about(scored):
    """Of the last of three loops, or of the mean of all three on the last one's boxes."""
    masks = {"NAME": "InterleavedMasks", "SCORED": scored}
    heads, objects = h.build(h.tiny_cfg(**{**LOOPS, **SMALL, "MODEL__BALANCED__MASKS": masks})), h.targets((4, 7), masks=True)
    predicted, given = [], []
    predict = heads.mask_head.predict
    heads.mask_head.predict = lambda features: predicted.append(predict(features)) or predicted[-1]
    heads.mask_iou_head.register_forward_pre_hook(lambda module, args: given.append(args[1].detach()))
    h.train_step(heads, h.features(2), h.proposals(objects), objects)
    last = predicted[2:3] if scored == "last" else predicted[2:]
    assert len(predicted) == (3 if scored == "last" else 5) and len({len(each) for each in last}) == 1
    mean = torch.stack([each.detach().sigmoid() for each in last]).mean(dim=0)  # (F, K, S, S)
    classes = [min(range(3), key=lambda k: float((mask[k] - seen).abs().sum())) for mask, seen in zip(mean, given[0][:, 0])]
    expected = mean[torch.arange(len(classes)), torch.tensor(classes)][:, None]
    torch.testing.assert_close(given[0], expected, atol=1e-5, rtol=0)


def test_no_mask_is_chosen_to_be_scored_where_nothing_scores_it():
    masks = {"NAME": "InterleavedMasks", "SCORED": "mean"}
    with pytest.raises(ValueError, match="MASKS.SCORED.*does not go with mask_iou_head=None"):
        h.build(h.tiny_cfg(**{**LOOPS, "MODEL__BALANCED__MASKS": masks}))


def test_its_loss_has_its_own_weight_and_none_of_the_loops():
    """The release: half of the mean squared error, whatever the loop weighs in which the head trains."""
    losses = []
    for weights in ((1.0, 1.0, 1.0), (1.0, 0.75, 0.5)):
        cfg = h.tiny_cfg(**{**LOOPS, **SMALL, "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", "LOSS_WEIGHTS": weights}})
        objects = h.targets((4, 7), masks=True)
        losses.append(h.train_step(h.build(cfg), h.features(2), h.proposals(objects), objects)[0])
    plain, weighted = losses
    assert plain["loss_mask_iou_stage2"] > 0
    assert torch.equal(weighted["loss_mask_iou_stage2"], plain["loss_mask_iou_stage2"])
    assert torch.equal(weighted["loss_mask_stage2"], plain["loss_mask_stage2"] * 0.5)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_infers_mask_scores_beside_unchanged_box_scores(name):
    heads = h.build(h.tiny_cfg(**COMBINATIONS[name]))
    objects = h.targets((4, 7))
    feats, props = h.features(2), h.proposals(objects)
    found = h.detect(heads, feats, props)
    pooled = heads.pool_masks(feats, [d.pred_boxes for d in found])
    classes, scores = (torch.cat([d.get(key) for d in found]) for key in ("pred_classes", "scores"))
    with torch.no_grad():
        ious = heads.mask_iou_head(pooled, scored_masks(heads, pooled, found, classes))
    torch.testing.assert_close(torch.cat([d.mask_scores for d in found]), scores * ious[range(len(ious)), classes])
    plain = copy.deepcopy(heads)
    plain.mask_iou_head = None
    for with_head, without in zip(found, h.detect(plain, feats, props)):
        assert torch.equal(with_head.scores, without.scores) and torch.equal(with_head.pred_masks, without.pred_masks)
        assert not without.has("mask_scores")
    assert [len(d) for d in h.detect(heads, feats, [p[:0] for p in props])] == [0, 0]


def test_scoring_changes_no_other_loss():
    plain = h.build(h.tiny_cfg(**MASKS))
    scored = h.build(h.tiny_cfg(**MASKS, **SMALL), seed=9)
    scored.load_state_dict(plain.state_dict(), strict=False)
    objects = h.targets((4, 7), masks=True)
    losses = [h.train_step(each, h.features(2), h.proposals(objects), objects)[0] for each in (plain, scored)]
    assert set(losses[1]) - set(losses[0]) == {"loss_mask_iou"}
    assert all(torch.equal(loss, losses[1][name]) for name, loss in losses[0].items())


def test_large_box_head_has_the_papers_layout():
    head = NonLocalConvHead(ShapeSpec(channels=256, height=7, width=7))
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if name.endswith("weight")}
    assert shapes["convs.0.weight"] == (128, 256, 7, 7) and shapes["convs.1.weight"] == (64, 128, 7, 7)
    assert shapes["non_local.0.theta.weight"] == (128, 256, 7, 7)
    assert shapes["non_local.0.out.weight"] == (256, 128, 7, 7)
    assert head.output_shape.channels == 64 * 7 * 7 == head(torch.zeros(2, 256, 7, 7)).shape[1]
    assert head(torch.zeros(0, 256, 7, 7)).shape == (0, 64 * 7 * 7)


def test_large_mask_iou_head_has_the_releases_layout():
    head = NonLocalMaskIoUHead(input_shape=ShapeSpec(channels=256, height=14, width=14), num_classes=80)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if name.endswith("weight")}
    assert [shapes[f"convs.{i}.weight"][:2] for i in range(4)] == [(256, 257)] + [(256, 256)] * 3
    assert shapes["before.0.theta.weight"] == (128, 256, 7, 7) and shapes["after.0.out.weight"] == (64, 32, 7, 7)
    assert shapes["large.0.weight"] == (128, 256, 7, 7) and shapes["large.1.weight"] == (64, 128, 7, 7)
    assert shapes["predictor.weight"] == (80, 64 * 7 * 7)


def test_the_same_heads_by_lazyconfig_nodes():
    shape = L(ShapeSpec)(channels=8, height=4, width=4)
    node = L(NonLocalMaskIoUHead)(input_shape=shape, num_classes=3, kernel_size=3)
    by_yacs = h.build(h.tiny_cfg(**MASKS, **LARGE)).mask_iou_head
    shapes = [{n: p.shape for n, p in each.named_parameters()} for each in (instantiate(node), by_yacs)]
    assert shapes[0] == shapes[1]


SHAPE = ShapeSpec(channels=8, height=4, width=4)


@pytest.mark.parametrize(
    "build, named",
    [
        (lambda: MaskIoUHead(input_shape=SHAPE, num_classes=3, num_conv=0), "num_conv"),
        (lambda: MaskIoUHead(input_shape=SHAPE, num_classes=3, loss_weight=-1.0), "loss_weight"),
        (lambda: NonLocalMaskIoUHead(input_shape=SHAPE, num_classes=3, large_dims=[0]), "large_dims"),
        (lambda: NonLocalMaskIoUHead(input_shape=SHAPE, num_classes=3, kernel_size=4), "kernel_size"),
        (lambda: InterleavedMasks(scored="first"), "scored must be one of last, mean"),
        (lambda: NonLocalConvHead(SHAPE, conv_dims=[0]), "conv_dims"),
        (lambda: NonLocalConvHead(SHAPE, reduction=3), "reduction"),
        (lambda: h.build(h.tiny_cfg(**SMALL)), "MODEL.MASK_ON"),
        (lambda: h.build(h.tiny_cfg(**MASKS, MODEL__BALANCED__MASK_IOU_HEAD={"NAME": "X"})), "MASK_IOU_HEAD.NAME"),
    ],
)
def test_refusals_name_the_argument(build, named):
    with pytest.raises((ValueError, ConfigError), match=named):
        build()
