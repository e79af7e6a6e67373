"""SABL in the ROI heads: every side's features, buckets on every axis of the step, scores times confidences."""

import pytest
import roi_heads_tools as h
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform

from d2_balanced.config import check_config, get_balanced_cfg
from d2_balanced.modeling.box_coders import Buckets
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.roi_heads import SideAwareHead
from d2_balanced.modeling.roi_heads.check_axes import check_axes
from d2_balanced.modeling.suppression import NMS
from d2_balanced.modeling.task_features import TaskShapes
from d2_balanced.utils.errors import Refusal

NODE, CODER, LOSS = "MODEL__ROI_BOX_HEAD__", "MODEL__BALANCED__BOX_CODER", "MODEL__BALANCED__BOX_LOSS"
BUCKETS = {CODER: {"NAME": "Buckets", "NUM_BUCKETS": 6}, LOSS: {"NAME": "BucketLoss"}}
SABL = {f"{NODE}NAME": "SideAwareHead", f"{NODE}NUM_CONV": 1, f"{NODE}CONV_DIM": 4, **BUCKETS}
AXES = {
    **h.AXES,
    "PISA": {"MODEL__BALANCED__SAMPLE_WEIGHTS": {"NAME": "PISA"}},
    "OHEM": {"MODEL__BALANCED__SAMPLE_WEIGHTS": {"NAME": "OHEM"}},
    "quality focal": {"MODEL__BALANCED__CLS_LOSS": {"NAME": "QualityFocal"}},
    "predicted boxes": {"MODEL__MASK_ON": True, f"{NODE}TRAIN_ON_PRED_BOXES": True},
}
SHAPE = ShapeSpec(channels=5, height=3, width=3)


def head(**settings):
    torch.manual_seed(0)
    return SideAwareHead(SHAPE, **{"fc_dims": [6], "conv_dim": 4, "num_convs": 1, **settings})


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
@pytest.mark.parametrize("objects", [(4, 7), (0, 0)])
def test_it_trains_and_detects_on_every_axis(axes, objects):
    targets = h.targets(objects, masks="MODEL__MASK_ON" in axes)
    heads = h.build(h.tiny_cfg(**SABL, **axes))
    losses, gradients, *_ = h.train_step(heads, h.features(2), h.proposals(targets), targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(name in gradients and gradients[name].isfinite().all() for name, _ in heads.named_parameters())
    assert all(found.scores.isfinite().all() for found in h.detect(heads, h.features(2), h.proposals(targets)))


def test_buckets_need_no_head_of_their_own():
    heads, targets = h.build(h.tiny_cfg(**BUCKETS)), h.targets((4, 7))
    assert heads.box_predictor.bbox_pred.out_features == 3 * 24
    losses = h.train_step(heads, h.features(2), h.proposals(targets), targets)[0]
    assert losses["loss_box_reg"] > 0


def test_each_stage_has_its_scale():
    heads = h.build(h.tiny_cfg(**SABL, **h.CASCADE, **h.AGNOSTIC))
    assert [p.box2box_transform.scale_factor for p in heads.box_predictor] == [1.7, 1.5, 1.3]
    own = {CODER: {"NAME": "Buckets", "NUM_BUCKETS": 6, "SCALE_FACTORS": [1.6, 1.4]}}
    heads = h.build(h.tiny_cfg(**{**SABL, **own}, **h.CASCADE, **h.AGNOSTIC))
    assert [p.box2box_transform.scale_factor for p in heads.box_predictor] == [1.6, 1.4, 1.4]
    assert h.build(h.tiny_cfg(**SABL, **h.RECURSIVE, **h.AGNOSTIC)).box_predictor.box2box_transform.scale_factor == 1.7


# --- features --------------------------------------------------------------------------------------------------------


def test_features_of_the_sides_are_those_of_the_formula():
    """A mean across each axis, position by position; a convolution along it; twice as long; split from both ends."""
    module = head().eval()
    x = torch.randn(2, 5, 3, 3)
    of_classes, sides = module(x)
    assert torch.equal(of_classes, module.fc_head(x)) and sides.shape == (2, 4, 3, 4)
    convolved = module.convs(x)
    turned_over = convolved.transpose(2, 3)
    for part, low, high, turned in ((module.along_x, 0, 2, convolved), (module.along_y, 1, 3, turned_over)):
        columns = []
        for i in range(3):  # (R, C, 3): what lies across the axis at position i
            across = turned[:, :, :, i]
            weights = torch.sigmoid((across * part.attention.weight[0].squeeze(-1)).sum(dim=1) + part.attention.bias)
            columns.append((across * (weights / weights.sum(dim=1, keepdim=True))[:, None]).sum(dim=2))
        along = torch.relu(part.upsample(torch.relu(part.conv(torch.stack(columns, dim=2)))))
        for bucket in range(3):
            torch.testing.assert_close(sides[:, low, bucket], along[:, :, bucket])
            torch.testing.assert_close(sides[:, high, bucket], along[:, :, 5 - bucket])
    assert module.output_shape == TaskShapes(ShapeSpec(channels=6), ShapeSpec(channels=4, height=4, width=3))
    assert [each.shape for each in module(x[:0])] == [(0, 6), (0, 4, 3, 4)]


def test_each_task_trains_its_own_layers():
    module = head()
    predictor = BalancedFastRCNNOutputLayers(
        h.tiny_cfg(**SABL), module.output_shape, box2box_transform=Buckets(num_buckets=6)
    )
    logits, values = predictor(module(torch.randn(2, 5, 3, 3)))
    assert logits.shape == (2, 4) and values.shape == (2, 3 * 24)
    layers = dict([*module.named_parameters(), *predictor.named_parameters()])
    of_boxes = ("convs", "along_", "bbox_pred")
    for output, own in ((logits, ("fc_head", "cls_score")), (values, of_boxes)):
        gradients = torch.autograd.grad(output.square().sum(), layers.values(), allow_unused=True, retain_graph=True)
        assert {name for name, g in zip(layers, gradients) if g is not None} == {n for n in layers if n.startswith(own)}


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [{}, h.AGNOSTIC, h.BRANCHES, AXES["cascade"], AXES["loops"]])
def test_scores_above_the_threshold_are_multiplied_by_the_confidences(axes):
    cfg, targets = h.tiny_cfg(**SABL, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.25, **axes), h.targets((4, 7))
    heads = h.build(cfg).eval()
    with torch.no_grad():
        found = heads.box_candidates(h.features(2), h.proposals(targets))
        scores, thresh = heads.iou_branch.rescore(found)
    assert thresh == 0.0 and any((each > 0).any() for each in scores)
    for rescored, plain, sure, boxes in zip(scores, found.scores, found.confidences, found.boxes):
        assert sure.shape == (len(boxes), boxes.shape[1] // 4) and (sure > 0).all() and (sure <= 1).all()
        for row, row_plain, row_sure in zip(rescored[:, :-1].tolist(), plain[:, :-1].tolist(), sure.tolist()):
            for k, (score, before) in enumerate(zip(row, row_plain)):
                factor = row_sure[k if len(row_sure) > 1 else 0]
                assert score == pytest.approx(before * factor if before > 0.25 else -1.0)


def test_without_rescoring_scores_are_the_classes():
    settings = {**SABL, CODER: {"NAME": "Buckets", "NUM_BUCKETS": 6, "RESCORE": False}}
    heads, targets = h.build(h.tiny_cfg(**settings)).eval(), h.targets((4, 7))
    with torch.no_grad():
        found = heads.box_candidates(h.features(2), h.proposals(targets))
    assert found.confidences is None and heads.iou_branch.rescore(found) == (found.scores, 0.01)


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({**SABL, CODER: {"NAME": "Buckets"}}, "the box head.*Buckets.*4 x 3 places"),
        ({**SABL, CODER: {"NAME": ""}, LOSS: {"NAME": "SmoothL1"}}, "the box head.*4 x 3 places"),
        ({**SABL, LOSS: {"NAME": "GIoU"}}, "box_loss=GIoU.*Buckets.*BucketLoss"),
        ({**BUCKETS, **h.IOU_BRANCH}, "BOX_CODER. Buckets.*IoUBranch.*own loss"),
        ({**SABL, **h.IOU_BRANCH}, "iou_head=SideAwareHead.*iou_branch=IoUBranch"),
        ({**SABL, f"{NODE}BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0)}, "BBOX_REG_WEIGHTS.*BOX_CODER.NAME: Buckets"),
        ({**SABL, f"{NODE}SMOOTH_L1_BETA": 1.0}, "smooth_l1_beta=1.0.*box_loss=BucketLoss"),
    ],
)
def test_what_does_not_go_together(settings, message):
    with pytest.raises(Refusal, match=message):
        h.build(h.tiny_cfg(**settings))


def test_other_heads_refuse_it():
    cfg = get_balanced_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME = "GeneralizedRCNN", "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.NAME = "SideAwareHead"
    with pytest.raises(Refusal, match="SideAwareHead does not go with MODEL.ROI_HEADS.NAME: StandardROIHeads"):
        check_config(cfg)


def test_joint_nms_of_different_coders_is_refused():
    heads = h.build(h.tiny_cfg(**BUCKETS, **h.BRANCHES))
    heads.nms = NMS(joint=True)
    check_axes(heads)
    heads.branches[1].predictor(0).box2box_transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    with pytest.raises(Refusal, match="joint.*box coders Box2BoxTransform, Buckets"):
        check_axes(heads)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_convs": 0}, "NUM_CONV"),
        ({"fc_dims": []}, "NUM_FC"),
        ({"upsample": 0}, "upsample"),
        ({"upsample": 3}, "an even number long; got 3 x 3"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"SideAwareHead: .*{message}"):
        head(**settings)
