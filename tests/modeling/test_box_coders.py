"""Box coders: buckets, their loss and their regressor; detectron2's deltas are in ``test_box_predictor.py``."""

import os

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from paths import ROOT
from reference import buckets as reference

from d2_balanced.modeling.box_coders import Buckets
from d2_balanced.modeling.box_coders.regressor import LinearOfPlaces
from d2_balanced.modeling.box_losses import BucketLoss, EIoU, KLLoss, SmoothL1
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.dense_losses import check_dense_box_loss
from d2_balanced.modeling.task_features import TaskShapes
from d2_balanced.utils.errors import Refusal

K, CHANNELS, NUM = 3, 8, 14
SETTINGS = [{}, {"num_buckets": 6, "scale_factors": [1.2]}, {"num_buckets": 4, "scale_factors": (2.0, 1.5), "stage": 4}]


def pairs(num=30):
    """Proposals and objects (num, 4), some of them far from each other."""
    generator = torch.Generator().manual_seed(0)
    corners, sizes = 40 * torch.rand(2, num, 2, generator=generator)
    boxes = torch.cat([corners, corners + sizes + 5], dim=1)
    shift = torch.randn(num, 4, generator=generator) * torch.linspace(0, 20, num)[:, None]
    gt_boxes = boxes + shift
    return boxes, torch.cat([gt_boxes[:, :2], torch.maximum(gt_boxes[:, 2:], gt_boxes[:, :2] + 1)], dim=1)


def some_values(coder, num, classes=1):
    return 2 * torch.randn(num, len(coder.weights) * classes, generator=torch.Generator().manual_seed(1))


def as_lists(coder, values):
    return values.view(len(values), *coder.places, 2).tolist()


def assert_close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS)
def test_boxes_and_confidences_are_those_of_the_reference(settings):
    coder, (boxes, _) = Buckets(**settings), pairs()
    values = some_values(coder, len(boxes))
    own = coder.num_buckets, coder.scale_factor
    wanted = [reference.decode(v, box, *own) for v, box in zip(as_lists(coder, values), boxes.tolist())]
    assert_close(coder.apply_deltas(values, boxes), [box for box, _ in wanted])
    assert_close(coder.confidences(values), [[sure] for _, sure in wanted])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    "of_loss", [{}, {"beta": 0.0, "max_offset": 0.0}, {"ignore_neighbors": False, "max_offset": 2.5}]
)
def test_losses_are_those_of_the_reference(settings, of_loss):
    coder, (boxes, gt_boxes) = Buckets(**settings), pairs()
    values = some_values(coder, len(boxes))
    wanted = [
        reference.loss(v, box, gt, coder.num_buckets, coder.scale_factor, **of_loss)
        for v, box, gt in zip(as_lists(coder, values), boxes.tolist(), gt_boxes.tolist())
    ]
    assert_close(BucketLoss(**of_loss)(values, coder.get_deltas(boxes, gt_boxes)), wanted)


def test_by_hand():
    """Buckets of 10 x 5 pixels. The left side at 27: 0.2 of a bucket right of the third one's middle, 25; 1.2 right of
    the second's, which is a negative, and 0.8 left of the fourth's, which is near. The others are in a middle."""
    coder = Buckets(num_buckets=14, scale_factors=[1.0])
    box, gt_box = torch.tensor([[0.0, 0.0, 140.0, 70.0]]), torch.tensor([[27.0, 2.5, 115.0, 67.5]])
    target = coder.get_deltas(box, gt_box)
    torch.testing.assert_close(target, torch.tensor([[2.7, 0.5, -2.5, -0.5]]))
    values = torch.zeros(1, 4, 7, 2)
    log2 = torch.log(torch.tensor(2.0))
    # left: 6 counted buckets (the fourth is ignored), offsets -0.2 and 0.8; the others: all 7, and an offset of 0
    left = 6 / 4 * log2 + (0.2 - 0.05) + (0.8 - 0.05)
    torch.testing.assert_close(BucketLoss()(values.flatten(1), target)[0], torch.stack([left, *[7 / 4 * log2] * 3]))
    for side, (bucket, offset) in enumerate([(2, -0.2), (0, 0.0), (2, 0.0), (0, 0.0)]):
        values[0, side, bucket] = torch.tensor([9.0, offset])
    torch.testing.assert_close(coder.apply_deltas(values.flatten(1), box), gt_box)


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_the_loss_wants_is_the_object(settings):
    """Values that the loss finds nothing wrong with are decoded to the object, as far as it is in reach."""
    coder, (boxes, gt_boxes) = Buckets(**settings), pairs()
    target, loss = coder.get_deltas(boxes, gt_boxes), BucketLoss(beta=0.0, bucket_weight=0.0)
    values = torch.zeros(len(boxes), len(coder.weights), requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        (loss(values, target) + BucketLoss(offset_weight=0.0)(values, target)).sum().backward()
        optimizer.step()
    bound = 0.5 * coder.scale_factor * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) / coder.num_buckets
    near = (target.abs() < coder.num_buckets / 2) & (target * torch.tensor([1, 1, -1, -1]) > 0)
    error = (coder.apply_deltas(values, boxes) - gt_boxes).abs()
    assert near.sum() > 40 and (error < bound)[near].all()


def test_every_class_has_boxes_of_its_own():
    coder, (boxes, _) = Buckets(), pairs(5)
    values = some_values(coder, 5, classes=K)
    alone = values.chunk(K, dim=1)
    wanted = torch.cat([coder.apply_deltas(v, boxes) for v in alone], dim=1)
    assert torch.equal(coder.apply_deltas(values, boxes), wanted)
    assert torch.equal(coder.confidences(values), torch.cat([coder.confidences(v) for v in alone], dim=1))
    assert Buckets(rescore=False).confidences(values) is None


def test_boxes_without_extent_and_objects_out_of_reach():
    coder, loss = Buckets(), BucketLoss()
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 9.0, 9.0], [5.0, 5.0, 5.001, 5.001]])
    gt_boxes = torch.tensor([[0.0, 0.0, 99.0, 99.0]]).expand(4, 4)
    values = some_values(coder, 4).requires_grad_()
    losses = loss(values, coder.get_deltas(boxes, gt_boxes))
    losses.sum().backward()
    assert losses.isfinite().all() and values.grad.isfinite().all() and values.grad.abs().max() <= 1
    found = coder.apply_deltas(values, boxes)
    assert found.isfinite().all() and (found[:, 2:] >= found[:, :2]).all()


def test_nothing_gives_nothing():
    coder, none = Buckets(), torch.zeros(0, 4)
    values = torch.zeros(0, 56 * 2, requires_grad=True)
    assert coder.apply_deltas(values, none).shape == (0, 8) and coder.confidences(values).shape == (0, 2)
    losses = BucketLoss()(values[:, :56], coder.get_deltas(none, none))
    assert losses.shape == (0, 4) and losses.requires_grad


def test_half_the_digits():
    """Values of bfloat16: boxes, confidences and losses are float32."""
    coder, (boxes, gt_boxes) = Buckets(), pairs(5)
    values = some_values(coder, 5).bfloat16()
    for found in (
        coder.apply_deltas(values, boxes),
        coder.confidences(values),
        BucketLoss()(values, coder.get_deltas(boxes, gt_boxes)),
    ):
        assert found.dtype == torch.float32 and found.isfinite().all()


def test_nothing_waits_for_the_device(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "benchmarks"))
    from host_work import count

    coder, (boxes, gt_boxes) = Buckets(), pairs(5)
    values = some_values(coder, 5)
    assert count(lambda: coder.get_deltas(boxes, gt_boxes)).where == {}
    assert count(lambda: (coder.apply_deltas(values, boxes), coder.confidences(values))).where == {}


# --- the regressor ---------------------------------------------------------------------------------------------------


def test_one_layer_at_every_place():
    layer = LinearOfPlaces(CHANNELS, num_places=6, num_values=2, num_classes=K)
    x = torch.randn(5, 6, CHANNELS)
    found = layer(x.flatten(1)).view(5, K, 6, 2)
    for place in range(6):
        wanted = torch.nn.functional.linear(x[:, place], layer.weight, layer.bias).view(5, K, 2)
        torch.testing.assert_close(found[:, :, place], wanted)
    assert layer(x[:0].flatten(1)).shape == (0, K * 12)


def predictor(shape=None, coder=None, **options):
    torch.manual_seed(0)
    settings = {"box_loss": BucketLoss(), **options}
    return BalancedFastRCNNOutputLayers(
        shape or ShapeSpec(channels=CHANNELS), box2box_transform=coder or Buckets(), num_classes=K, **settings
    )


PLACES = TaskShapes(ShapeSpec(channels=CHANNELS), ShapeSpec(channels=5, height=4, width=7))


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("shape", [None, PLACES], ids=["one feature", "a feature a place"])
@pytest.mark.parametrize("classes", [[0, 1, 2, K, K, 2], [K, K], [1], []], ids=["mixed", "background", "one", "none"])
def test_every_batch_trains(class_agnostic, shape, classes):
    module = predictor(shape, cls_agnostic_bbox_reg=class_agnostic)
    boxes, gt_boxes = pairs(len(classes))
    image = Instances((100, 100), proposal_boxes=Boxes(boxes), gt_boxes=Boxes(gt_boxes))
    image.gt_classes = torch.tensor(classes, dtype=torch.int64)
    features = torch.randn(len(classes), CHANNELS), torch.randn(len(classes), 4, 7, 5)
    predictions = module(features if shape else features[0])
    with EventStorage():
        losses = module.losses(predictions, [image])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in module.parameters())
    rows = [i for i, c in enumerate(classes) if c < K]
    values = predictions[1].unflatten(1, (-1, 56))
    mine = values[rows, [0 if class_agnostic else classes[i] for i in rows]]
    wanted = [
        sum(reference.loss(v, box, gt, NUM, 1.7))
        for v, box, gt in zip(as_lists(Buckets(), mine), boxes[rows].tolist(), gt_boxes[rows].tolist())
    ]
    assert losses["loss_box_reg"].item() == pytest.approx(sum(wanted) / max(len(classes), 1), rel=1e-4)
    found = module.predict_boxes(predictions, [image])
    assert found[0].shape == (len(classes), 4 if class_agnostic else 4 * K)
    assert module.predict_confidences(predictions, [image])[0].shape == (len(classes), 1 if class_agnostic else K)


# --- of one's own ----------------------------------------------------------------------------------------------------


class Offsets:
    """The sides' offsets in sizes of the proposal, as docs/OWN_COMPONENTS.md says that a coder may be written."""

    weights = (1.0, 1.0, 1.0, 1.0)

    def get_deltas(self, boxes, gt_boxes):
        return (gt_boxes - boxes) / self._sizes(boxes)

    def apply_deltas(self, deltas, boxes):
        return (deltas.unflatten(1, (-1, 4)) * self._sizes(boxes)[:, None] + boxes[:, None]).flatten(1)

    def _sizes(self, boxes):
        return (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


@pytest.mark.parametrize("box_loss", [SmoothL1(), EIoU()])
def test_another_coder_needs_no_more_than_detectron2s_interface(box_loss):
    module = predictor(coder=Offsets(), box_loss=box_loss)
    boxes, gt_boxes = pairs(4)
    image = Instances((100, 100), proposal_boxes=Boxes(boxes), gt_boxes=Boxes(gt_boxes))
    image.gt_classes = torch.tensor([0, 1, 2, K])
    predictions = module(torch.randn(4, CHANNELS))
    with EventStorage():
        losses = module.losses(predictions, [image])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] > 0 and module.bbox_pred.weight.grad.abs().sum() > 0
    assert module.predict_boxes(predictions, [image])[0].shape == (4, 4 * K)
    assert module.predict_confidences(predictions, [image]) is None
    assert module.ious(predictions[1], image.gt_classes, [image], "predicted").shape == (4,)


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Buckets(num_buckets=7), "Buckets: num_buckets must be even, half of them for each side; got 7"),
        (lambda: Buckets(num_buckets=2), "num_buckets must be a whole number, 4 or more|num_buckets must be 4 or more"),
        (lambda: Buckets(scale_factors=[]), "the number of scale_factors must be 1 or more"),
        (lambda: Buckets(scale_factors=[1.7, 0.0]), "scale_factors must be above 0"),
        (lambda: Buckets(stage=-1), "stage must be 0 or more"),
        (lambda: BucketLoss(beta=-1.0), "BucketLoss: beta must be 0 or more"),
        (lambda: BucketLoss(max_offset=-0.1), "max_offset must be 0 or more"),
        (lambda: BucketLoss(bucket_weight=-1.0), "bucket_weight must be 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


DELTAS = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"box_loss": EIoU()}, "box_loss=EIoU.*box2box_transform=Buckets.*sees boxes.*by buckets.*BucketLoss"),
        ({"box_loss": KLLoss()}, "box_loss=KLLoss.*box2box_transform=Buckets.*sees corners"),
        ({"box_loss": None}, "box_reg_loss_type='smooth_l1'.*box2box_transform=Buckets"),
        ({"coder": DELTAS}, "box_loss=BucketLoss.*box2box_transform=Box2BoxTransform.*deltas or boxes or corners"),
        ({"shape": PLACES, "coder": DELTAS}, "box head .*box2box_transform=Box2BoxTransform.*4 x 7 places"),
        ({"shape": PLACES, "coder": Buckets(num_buckets=8)}, "box head .*box2box_transform=Buckets.*4 x 7 places"),
    ],
)
def test_what_does_not_go_together(settings, message):
    with pytest.raises(Refusal, match=message):
        predictor(**settings)


def test_an_rpn_has_no_buckets():
    with pytest.raises(Refusal, match="box_loss=BucketLoss.*BalancedRPN.*buckets"):
        check_dense_box_loss("BalancedRPN", BucketLoss(), "smooth_l1")
