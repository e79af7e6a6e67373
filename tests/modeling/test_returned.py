"""What components of a user's own return in a wrong shape is an error that names the component and the shape."""

import pytest
import roi_heads_tools as h
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch.nn import functional as F

from d2_balanced.modeling.box_losses.seat import box_losses
from d2_balanced.modeling.cls_losses.seat import class_losses
from d2_balanced.modeling.sample_weights import RoIWeights
from d2_balanced.modeling.sample_weights.seat import SampleWeights
from d2_balanced.modeling.suppression import Predicted
from d2_balanced.modeling.suppression.seat import Suppression

CLS_LOSSES = {
    "summed": (lambda logits, labels: F.cross_entropy(logits, labels), r"shape \(\); wanted is \(5,\)"),
    "a column": (lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")[:, None], r"shape \(5, 1\)"),
    "nothing": (lambda logits, labels: None, "returned NoneType"),
}


@pytest.mark.parametrize("loss, message", CLS_LOSSES.values(), ids=CLS_LOSSES)
def test_classification_losses(loss, message):
    with pytest.raises(TypeError, match=f"lambda.*MODEL.BALANCED.CLS_LOSS.*{message}"):
        class_losses(loss, torch.randn(5, 4), torch.arange(5) % 4, None, learn=False)


@pytest.mark.parametrize("reduce, shape", [(torch.mean, r"\(\)"), (lambda x: x.sum(0), r"\(4,\)"), (lambda x: x[:, :1], r"\(6, 1\)")])
def test_box_losses(reduce, shape):
    def my_loss(pred, target):
        return reduce((pred - target).abs())

    boxes = torch.tensor([[10.0, 10.0, 30.0, 50.0]]).repeat(6, 1)
    with pytest.raises(TypeError, match=rf"my_loss \(a box loss.*shape {shape}; wanted is \(6, 4\) or \(6,\)"):
        box_losses(my_loss, Box2BoxTransform((10.0, 10.0, 5.0, 5.0)), torch.zeros(6, 4), boxes, boxes + 1)


class Mine(SampleWeights):
    reads_boxes = False

    def __init__(self, make):
        super().__init__()
        self.make = make

    def weigh(self, view, losses):
        return self.make(losses)


WEIGHTS = {
    "a column": (lambda losses: RoIWeights(cls=losses.cls.detach()[:, None]), r"cls, a factor of every RoI"),
    "the foreground's": (lambda losses: RoIWeights(box=losses.box_elements.sum(dim=1)), r"box, a factor of every RoI"),
    "a tensor": (lambda losses: losses.cls.detach(), r"has returned Tensor, not RoIWeights; return RoIWeights\(cls="),
}


@pytest.mark.parametrize("make, message", WEIGHTS.values(), ids=WEIGHTS)
def test_sample_weights(make, message):
    heads, targets = h.build(h.tiny_cfg()), h.targets((4, 7, 1))
    heads.sample_weights = Mine(make)
    with pytest.raises(TypeError, match=rf"Mine \(sample weights, MODEL.BALANCED.SAMPLE_WEIGHTS\).*{message}"):
        h.watched_step(heads, h.features(3), h.proposals(targets, 60, 3), targets)


@pytest.mark.parametrize("suppress", [lambda c: torch.arange(2), lambda c: None], ids=["indices", "nothing"])
def test_suppressions(suppress):
    class MyNMS(Suppression):
        def suppress(self, candidates, nms_thresh):
            return suppress(candidates)

    boxes = [torch.tensor([[1.0, 1.0, 9.0, 9.0], [20.0, 20.0, 30.0, 40.0]])]
    scores = [torch.tensor([[0.9, 0.1], [0.8, 0.2]])]
    with pytest.raises(TypeError, match=r"MyNMS \(a suppression.*not Candidates; .*candidates.select\(indices\)"):
        MyNMS()(boxes, scores, [(50, 60)], Predicted(0.05, 0.5, 10))
