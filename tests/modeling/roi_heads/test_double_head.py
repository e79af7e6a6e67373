"""Double-Head: each task has layers of its own, and nothing else of the step knows of it."""

import pytest
import roi_heads_tools as h
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform

from d2_balanced.config import check_config, get_balanced_cfg
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.roi_heads import DoubleHead
from d2_balanced.modeling.task_features import TaskShapes
from d2_balanced.utils.errors import Refusal

NODE = "MODEL__ROI_BOX_HEAD__"
DOUBLE = {f"{NODE}NAME": "DoubleHead", f"{NODE}NUM_CONV": 2, f"{NODE}CONV_DIM": 4, f"{NODE}NORM": "BN"}
AXES = {
    "one stage": {},
    "cascade": {**h.CASCADE, **h.AGNOSTIC},
    "loops": {**h.RECURSIVE, **h.AGNOSTIC},
    "branches": h.BRANCHES,
    "PISA": {"MODEL__BALANCED__SAMPLE_WEIGHTS": {"NAME": "PISA"}},
    "variances": {"MODEL__BALANCED__BOX_LOSS": {"NAME": "KLLoss"}},
}
SHAPE = ShapeSpec(channels=8, height=3, width=3)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
@pytest.mark.parametrize("objects", [(4, 7), (0, 0)])
def test_it_trains_and_detects_on_every_axis(axes, objects):
    heads, targets = h.build(h.tiny_cfg(**DOUBLE, **axes)), h.targets(objects)
    losses, gradients, *_ = h.train_step(heads, h.features(2), h.proposals(targets), targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(name in gradients and gradients[name].isfinite().all() for name, _ in heads.named_parameters())
    assert all(found.scores.isfinite().all() for found in h.detect(heads, h.features(2), h.proposals(targets)))


def test_each_task_trains_its_own_layers():
    head = DoubleHead(SHAPE, fc_dims=[6], conv_dim=4, num_convs=2, conv_norm="")
    predictor = BalancedFastRCNNOutputLayers(
        head.output_shape, box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)), num_classes=3
    )
    logits, deltas = predictor(head(torch.randn(5, 8, 3, 3)))
    assert logits.shape == (5, 4) and deltas.shape == (5, 12)
    assert predictor.bbox_pred.in_features == 16 and predictor.cls_score.in_features == 6
    layers = {name: p for name, p in [*head.named_parameters(), *predictor.named_parameters()]}
    for output, own in ((logits, ("fc_head", "cls_score")), (deltas, ("conv_head", "bbox_pred"))):
        gradients = torch.autograd.grad(output.square().sum(), layers.values(), allow_unused=True, retain_graph=True)
        assert {name for name, g in zip(layers, gradients) if g is not None} == {n for n in layers if n.startswith(own)}


def test_features_are_those_of_the_formula():
    """The convolutions' mean over the RoI; of two bottlenecks the first raises the channels."""
    head = DoubleHead(SHAPE, fc_dims=[6, 5], conv_dim=4, num_convs=2, conv_norm="").eval()
    x = torch.randn(2, 8, 3, 3)
    first, second = head.conv_head
    assert first.shortcut is not None and second.shortcut is None
    of_classes, of_boxes = head(x)
    assert torch.equal(of_boxes, second(first(x)).mean(dim=(2, 3)))
    assert torch.equal(of_classes, head.fc_head(x)) and of_classes.shape == (2, 5) and of_boxes.shape == (2, 16)
    assert head.output_shape == TaskShapes(ShapeSpec(channels=5), ShapeSpec(channels=16))
    assert [each.shape for each in head(x[:0])] == [(0, 5), (0, 16)]


def test_one_feature_for_both_is_the_predictor_as_it_was():
    shape = ShapeSpec(channels=6)
    predictors = []
    for given in (shape, TaskShapes(shape, shape)):
        torch.manual_seed(0)
        transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
        predictors.append(BalancedFastRCNNOutputLayers(given, box2box_transform=transform, num_classes=2))
    x = torch.randn(3, 6)
    assert all(torch.equal(*pair) for pair in zip(predictors[0](x), predictors[1]((x, x))))


def test_who_takes_one_feature_for_both_refuses_it():
    with pytest.raises(Refusal, match="DoubleHead.*takes one feature for both"):
        DoubleHead(SHAPE, conv_norm="").output_shape.channels
    with pytest.raises(Refusal, match="iou_head=DoubleHead.*iou_branch=IoUBranch"):
        h.build(h.tiny_cfg(**DOUBLE, MODEL__BALANCED__IOU_BRANCH={"NAME": "IoUBranch"}))
    cfg = get_balanced_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME = "GeneralizedRCNN", "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.NAME = "DoubleHead"
    with pytest.raises(Refusal, match="DoubleHead does not go with MODEL.ROI_HEADS.NAME: StandardROIHeads"):
        check_config(cfg)


@pytest.mark.parametrize("settings, message", [({"num_convs": 0}, "NUM_CONV"), ({"fc_dims": []}, "NUM_FC")])
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"DoubleHead: .*{message}"):
        DoubleHead(SHAPE, **settings)
