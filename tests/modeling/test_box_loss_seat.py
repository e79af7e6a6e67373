"""The seat of the box loss: what a loss sees, IoUs and variances, when it learns; what the predictor makes of it."""

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import nn

from d2_balanced.config import get_balanced_cfg
from d2_balanced.modeling.box_losses import CIoU, DIoU, GHMR, GIoU, IoULoss, KLLoss, SmoothL1
from d2_balanced.modeling.box_losses.seat import box_losses, corner_variances
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.predictions import BoxPredictions, log_variances_of, rows_of, with_logits
from d2_balanced.modeling.scoring import merge_branches

K, CHANNELS, SIZE = 3, 8, (100, 100)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CASES = {"mixed": [0, 1, 2, K, K, K, 2, K], "no foreground": [K, K, K], "one": [1], "one background": [K]}
each_case = pytest.mark.parametrize("classes", CASES.values(), ids=CASES.keys())


def predictor(seed=0, **options):
    torch.manual_seed(seed)
    module = BalancedFastRCNNOutputLayers(
        ShapeSpec(channels=CHANNELS), box2box_transform=Box2BoxTransform(WEIGHTS), num_classes=K, **options
    )
    with torch.no_grad():
        module.bbox_pred.weight.mul_(300)  # boxes that differ from the proposals
    return module


def batch(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, len(classes), 2, generator=generator) * 40
    image = Instances(SIZE, proposal_boxes=Boxes(torch.cat([corner, corner + size + 9], dim=1)))
    image.gt_boxes = Boxes(image.proposal_boxes.tensor + 2 * torch.randn(len(classes), 4, generator=generator))
    image.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return torch.randn(len(classes), CHANNELS, generator=generator), [image]


def losses_and_gradients(module, features, images):
    module.zero_grad()
    with EventStorage():
        losses = module.losses(module(features), images)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in module.named_parameters()}


class Spy(nn.Module):
    """Keeps what it is called with; the loss of every box is 0.5."""

    def __init__(self, **asked):
        super().__init__()
        vars(self).update(asked, calls=[], learned=[])

    def forward(self, pred, target, **more):
        self.calls.append((pred, target, more))
        return pred.sum(dim=1) * 0 + 0.5

    def accumulate(self, pred, target, **more):
        self.learned.append((pred, target, more))


# --- what a loss sees ------------------------------------------------------------------------------------------------


def pair(num=6):
    (image,) = batch([0] * num)[1]
    return torch.randn(num, 4), image.proposal_boxes.tensor, image.gt_boxes.tensor


def seen(**asked):
    """What a loss that asks for this is called with: predicted, target, more."""
    loss, (deltas, proposals, gt_boxes) = Spy(**asked), pair()
    box_losses(loss, Box2BoxTransform(WEIGHTS), deltas, proposals, gt_boxes, torch.ones(6, 4))
    return (*loss.calls[0], deltas, proposals, gt_boxes)


@pytest.mark.parametrize("asked", [{}, {"sees": "deltas"}])
def test_deltas(asked):
    torch.manual_seed(0)
    pred, target, more, deltas, proposals, gt_boxes = seen(**asked)
    assert torch.equal(pred, deltas) and not more
    assert torch.equal(target, Box2BoxTransform(WEIGHTS).get_deltas(proposals, gt_boxes))


def test_boxes_with_their_ious():
    torch.manual_seed(0)
    pred, target, more, deltas, proposals, gt_boxes = seen(sees="boxes", wants_ious=True)
    assert torch.equal(pred, Box2BoxTransform(WEIGHTS).apply_deltas(deltas, proposals)) and target is gt_boxes
    torch.testing.assert_close(more.pop("ious"), pairwise_iou(Boxes(pred), Boxes(gt_boxes)).diagonal())
    assert not more


def test_corners_are_offsets_in_sizes_of_the_proposal():
    torch.manual_seed(0)
    pred, target, _, deltas, proposals, gt_boxes = seen(sees="corners")
    boxes = Box2BoxTransform(WEIGHTS).apply_deltas(deltas, proposals)
    for offsets, of in ((pred, boxes), (target, gt_boxes)):
        for row, box, proposal in zip(offsets.tolist(), of.tolist(), proposals.tolist()):
            sizes = [proposal[2] - proposal[0], proposal[3] - proposal[1]] * 2
            wanted = [10 * (b - p) / s for b, p, s in zip(box, proposal, sizes)]
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_a_loss_learns_only_where_it_is_told_to():
    loss, boxes = Spy(sees="boxes", wants_ious=True), pair()
    box_losses(loss, Box2BoxTransform(WEIGHTS), *boxes)
    assert not loss.learned
    box_losses(loss, Box2BoxTransform(WEIGHTS), *boxes, learn=True)
    assert torch.equal(loss.learned[0][0], loss.calls[1][0]) and list(loss.learned[0][2]) == ["ious"]


# --- in the predictor ------------------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("name, loss", [("giou", GIoU()), ("diou", DIoU()), ("ciou", CIoU())])
def test_components_are_what_detectron2s_own_key_chooses(classes, class_agnostic, name, loss):
    options = dict(cls_agnostic_bbox_reg=class_agnostic, loss_weight={"loss_box_reg": 2.0})
    ours, theirs = predictor(box_loss=loss, **options), predictor(box_reg_loss_type=name, **options)
    (losses, gradients), (wanted, wanted_gradients) = (
        losses_and_gradients(module, *batch(classes)) for module in (ours, theirs)
    )
    torch.testing.assert_close(losses, wanted, rtol=0, atol=0)
    exact = dict(rtol=0, atol=0) if name == "giou" else dict(rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients, wanted_gradients, **exact)


@each_case
@pytest.mark.parametrize("make", [IoULoss, GHMR, KLLoss])
def test_every_batch_trains(classes, make):
    module = predictor(box_loss=make())
    for _ in range(2):
        losses, gradients = losses_and_gradients(module, *batch(classes))
        assert all(x.isfinite().all() for x in [*losses.values(), *gradients.values()])


@pytest.mark.parametrize("make", [SmoothL1, GIoU, IoULoss, GHMR, KLLoss])
def test_mixed_precision(make):
    """Deltas of half the digits: the losses are float32 and nearly those of float32 deltas."""
    features, images = batch(CASES["mixed"])
    found = []
    for enabled in (True, False):
        module = predictor(box_loss=make())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), EventStorage():
            losses = module.losses(module(features), images)
        losses["loss_box_reg"].backward()
        assert losses["loss_box_reg"].dtype == torch.float32 and module.bbox_pred.weight.grad.isfinite().all()
        found.append(losses["loss_box_reg"].detach())
    torch.testing.assert_close(*found, rtol=0.03, atol=0.02)


def test_losses_of_a_box_are_summed_over_the_foreground_and_divided_by_all():
    module = predictor(box_loss=Spy(sees="boxes"))
    losses, _ = losses_and_gradients(module, *batch(CASES["mixed"]))
    assert losses["loss_box_reg"].item() == pytest.approx(0.5 * 4 / 8)
    assert len(module.box_loss.learned) == 1
    with EventStorage(), torch.no_grad():
        module.losses(module(batch(CASES["mixed"])[0]), batch(CASES["mixed"])[1])
    assert len(module.box_loss.learned) == 1


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_unit_variances_are_smooth_l1_to_the_bit(class_agnostic):
    ours = predictor(box_loss=KLLoss(coordinates="deltas"), cls_agnostic_bbox_reg=class_agnostic)
    nn.init.zeros_(ours.bbox_log_variance.weight)
    theirs = predictor(box_loss=SmoothL1(beta=1.0), cls_agnostic_bbox_reg=class_agnostic)
    results = [losses_and_gradients(module, *batch(CASES["mixed"])) for module in (ours, theirs)]
    for own in ("bbox_log_variance.weight", "bbox_log_variance.bias"):
        assert results[0][1].pop(own).abs().sum() > 0
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_log_variances_are_those_of_the_gt_class_and_beside_detectron2s_pair(class_agnostic):
    module = predictor(box_loss=Spy(wants_log_variances=True), cls_agnostic_bbox_reg=class_agnostic)
    nn.init.normal_(module.bbox_log_variance.weight)
    features, images = batch(CASES["mixed"])
    predictions = module(features.view(8, CHANNELS, 1, 1))
    logits, deltas = predictions
    values = log_variances_of(predictions)
    assert values.shape == deltas.shape and log_variances_of((logits, deltas)) is None
    losses_and_gradients(module, features, images)
    found = module.box_loss.calls[0][2]["log_variances"]
    for row, roi in zip(found, [0, 1, 2, 6]):
        start = 0 if class_agnostic else 4 * images[0].gt_classes[roi]
        assert torch.equal(row, values[roi, start : start + 4])


def test_log_variances_follow_the_branch_that_the_boxes_are_from():
    first, second = (BoxPredictions(torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, 4)) for _ in range(2))
    merged = merge_branches([first, second], box_branch=1)
    assert torch.equal(merged[0], (first[0] + second[0]) / 2) and merged[1] is second[1]
    assert merged.log_variances is second.log_variances
    assert torch.equal(rows_of(merged, torch.tensor([3])).log_variances, second.log_variances[3:4])
    assert type(with_logits((1, 2), 3)) is tuple and with_logits((1, 2), 3) == (3, 2)


def test_variances_of_corners_in_pixels():
    """A proposal of 20 x 40: a corner's unit is 2 and 4 pixels. Of deltas, x1 varies by centre and half the width."""
    proposals = torch.tensor([[10.0, 10.0, 30.0, 50.0]])
    log_variances = torch.log(torch.tensor([[1.0, 4.0, 9.0, 0.25]]))
    transform, deltas = Box2BoxTransform(WEIGHTS), torch.tensor([[0.0, 0.0, 5 * math.log(2), 0.0]])
    of_corners = corner_variances(KLLoss(), transform, deltas, log_variances, proposals)
    torch.testing.assert_close(of_corners, torch.tensor([[4.0, 4 * 16, 9 * 4, 0.25 * 16]]))
    # predicted width 40, half of it over 5: 4 pixels a unit; height 40, too
    of_deltas = corner_variances(KLLoss("deltas"), transform, deltas, log_variances, proposals)
    x, y = 4 * 1 + 16 * 9, 16 * 4 + 16 * 0.25
    torch.testing.assert_close(of_deltas, torch.tensor([[x, y, x, y]]).float())


def test_variances_are_predicted_for_every_image_and_class():
    module = predictor(box_loss=KLLoss())
    features, (image,) = batch(CASES["mixed"])
    found = module.predict_variances(module(features), [image[:3], image[3:]])
    assert [tuple(each.shape) for each in found] == [(3, 4 * K), (5, 4 * K)]
    whole = module.predict_boxes(module(features), [image])[0]
    assert torch.cat(found).shape == whole.shape and (torch.cat(found) > 0).all()
    assert predictor().predict_variances(predictor()(features), [image]) is None


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIoU", "GHMR", "KLLoss"])
def test_two_choices_of_the_loss_are_refused_naming_both(name):
    cfg = get_balanced_cfg()
    cfg.MODEL.BALANCED.BOX_LOSS.NAME = name
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "giou"
    with pytest.raises(ValueError, match=f"MODEL.BALANCED.BOX_LOSS.NAME: {name}.*BBOX_REG_LOSS_TYPE: giou"):
        BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "smooth_l1"
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.5
    with pytest.raises(ValueError, match=f"smooth_l1_beta=0.5.*box_loss={name}"):
        BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
