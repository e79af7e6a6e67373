"""Dynamic SmoothL1 as a loss: its values and gradients at any beta, its statistic from boxes, its settings."""

import numpy as np
import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from fvcore.nn import smooth_l1_loss

from d2_balanced.modeling.box_losses import DynamicSmoothL1
from roi_heads_tools import view_of


SMALLEST = torch.finfo(torch.float32).tiny


def loss_at(beta, **settings):
    loss = DynamicSmoothL1(**settings)
    loss.beta.fill_(beta)
    return loss


def value_and_gradient(function, pred):
    pred = pred.clone().requires_grad_()
    value = function(pred)
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    return value.detach(), gradient


@pytest.mark.parametrize("beta", [1.0, 0.37, 1e-3])
def test_equals_detectron2s_smooth_l1_at_the_beta_in_force(beta):
    torch.manual_seed(0)
    pred, target = torch.randn(50, 4), torch.randn(50, 4)
    pred[:4] = target[:4] + torch.tensor([[0.0], [beta], [-beta], [beta / 2]])
    ours = value_and_gradient(lambda x: loss_at(beta)(x, target), pred)
    theirs = value_and_gradient(lambda x: smooth_l1_loss(x, target, float(torch.tensor(beta)), "none"), pred)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_starts_as_plain_smooth_l1_and_stays_it_without_room_to_move():
    loss = DynamicSmoothL1(k_error=1, period=1, min_beta=1.0, bbox_reg_weights=(10, 10, 5, 5), num_classes=1)
    image = boxes_image(errors=0.2)
    for i in range(3):
        assert loss.beta == 1.0
        loss.observe(view_of([image]))
        loss.end_iteration(i)
    assert float(loss.last_statistic) == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize("beta", [1e-6, 1e-20, 1e-37, SMALLEST])
def test_gradients_are_finite_however_small_beta_is(beta):
    residuals = torch.tensor([[0.0, 1e-45, 1e-38, 1e-20], [1e-6, 1.0, 1e4, -1e10]])
    value, gradient = value_and_gradient(lambda x: loss_at(beta)(x, torch.zeros_like(x)), residuals)
    assert value.isfinite().all() and gradient.isfinite().all() and gradient.abs().max() <= 1
    assert gradient[1].tolist() == [1, 1, 1, -1] and gradient[0, 0] == 0


def test_beta_never_becomes_so_small_that_its_inverse_overflows():
    loss = DynamicSmoothL1(period=1, k_error=1, bbox_reg_weights=(1e-44, 0, 0, 0), num_classes=1)
    loss.observe(view_of([boxes_image(10.0)]))
    loss.end_iteration(0)
    assert 0 < float(loss.last_statistic) < SMALLEST and float(loss.beta) == SMALLEST


def test_no_foreground_gives_an_empty_loss_with_a_gradient():
    pred = torch.zeros(0, 4, requires_grad=True)
    value = DynamicSmoothL1()(pred, torch.zeros(0, 4))
    assert value.shape == (0, 4)
    value.sum().backward()
    assert pred.grad.shape == (0, 4)


# ------------------------------------------------------------------------------------------------- its statistic


def boxes_image(errors, num=1, gt_classes=0):
    """Proposals 10 wide and 20 high, shifted so that the mean of |dx| and |dy| is ``errors`` with weights of 10."""
    boxes = torch.tensor([[30.0, 40.0, 40.0, 60.0]]).repeat(num, 1)
    shift = torch.tensor([1.0, 2.0, 1.0, 2.0]) * torch.as_tensor(errors).reshape(-1, 1)
    image = Instances((100, 100), proposal_boxes=Boxes(boxes), gt_boxes=Boxes(boxes + shift))
    image.gt_classes = torch.full((num,), gt_classes)
    image.is_gt = torch.zeros(num, dtype=torch.bool)
    return image


def statistic(loss, images, samples=None):
    loss.observe(view_of(images, samples or images))
    return float(loss.end_iteration(1)["dynamic_smooth_l1/error_statistic"])


@pytest.mark.parametrize("weights", [(10.0, 10.0, 5.0, 5.0), (20.0, 30.0, 10.0, 10.0)])
def test_errors_are_those_of_the_predictors_regression_targets(weights):
    torch.manual_seed(0)
    corners = torch.rand(30, 2) * 50
    boxes, gt_boxes = (torch.cat([corners, corners + 5 + 30 * torch.rand(30, 2)], dim=1) for _ in range(2))
    image = Instances((100, 100), proposal_boxes=Boxes(boxes), gt_boxes=Boxes(gt_boxes))
    image.gt_classes, image.is_gt = torch.zeros(30, dtype=torch.int64), torch.zeros(30, dtype=torch.bool)
    deltas = Box2BoxTransform(weights).get_deltas(boxes, gt_boxes)
    expected = deltas[:, :2].abs().mean(dim=1).sort().values[6]
    loss = DynamicSmoothL1(k_error=7, bbox_reg_weights=weights, num_classes=1)
    np.testing.assert_allclose(statistic(loss, [image]), expected, rtol=1e-5)


def test_scope_decides_between_all_labeled_and_the_sampled_positives():
    labeled = boxes_image([0.1, 0.2, 0.3, 0.4], num=4)
    labeled.gt_classes = torch.tensor([1, 0, 0, 0])  # the best one is background
    for scope, expected in (("batch", 0.1), ("image", 0.3)):
        loss = DynamicSmoothL1(k_error=1, scope=scope, bbox_reg_weights=(10, 10, 5, 5), num_classes=1)
        assert statistic(loss, [labeled], [labeled[torch.tensor([0, 2, 3])]]) == pytest.approx(expected, abs=1e-5)


def test_boxes_without_area_do_not_count():
    image = boxes_image([0.5, 0.7], num=2)
    image.proposal_boxes.tensor[0, 2] = image.proposal_boxes.tensor[0, 0]
    loss = DynamicSmoothL1(k_error=1, bbox_reg_weights=(10, 10, 5, 5), num_classes=1)
    assert statistic(loss, [image]) == pytest.approx(0.7, abs=1e-5)


def test_it_takes_what_it_does_not_know_from_the_predictor():
    loss = DynamicSmoothL1(k_error=1)
    with pytest.raises(RuntimeError, match="bbox_reg_weights and num_classes are not known"):
        loss.observe(view_of([boxes_image(0.5)]))
    loss.adopt((20.0, 20.0, 10.0, 10.0), 80)
    loss.adopt((1.0, 1.0, 1.0, 1.0), 3)  # set already
    assert statistic(loss, [boxes_image(0.3)]) == pytest.approx(0.6, abs=1e-5) and loss.num_classes == 80


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"k_error": 0}, "k_error must be 1 or more, got 0"),
        ({"period": 0}, "period must be from 1 to 1000000, got 0"),
        ({"initial_beta": 0.0}, "initial_beta must be above 0, got 0.0"),
        ({"initial_beta": float("inf")}, "initial_beta must be a finite number, above 0, got inf"),
        ({"min_beta": 1.5}, r"min_beta must be from 0 to 1.0, got 1.5"),
        ({"min_beta": -0.1}, r"min_beta must be from 0 to 1.0, got -0.1"),
        ({"scope": "epoch"}, "scope must be one of batch, image, got 'epoch'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f"DynamicSmoothL1: {message}"):
        DynamicSmoothL1(**settings)
