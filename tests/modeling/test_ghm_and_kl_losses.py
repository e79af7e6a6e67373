"""GHM-R and the KL loss: formulas over several iterations, neutral settings, nasty batches."""

import math

import pytest
import torch
from fvcore.nn import smooth_l1_loss
from reference import losses as reference
from reference.cls_losses import GradientDensity

from d2_balanced.modeling.box_losses import GHMR, KLLoss, SmoothL1
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY
from d2_balanced.modeling.spec import build_component


def deltas(num=12, seed=0, dtype=torch.float64):
    pred, target = torch.randn(2, num, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (pred * 0.2).to(dtype).requires_grad_(), (target * 0.2).to(dtype)


def result(loss, pred, target, *more):
    pred = pred.detach().requires_grad_()
    value = loss(pred, target, *more)
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]


# --- GHM-R -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divide_by", ["bins", "non_empty"])
def test_ghm_r_over_several_iterations(divide_by):
    loss = GHMR(mu=0.1, bins=5, momentum=0.7, divide_by=divide_by)
    density = GradientDensity(5, 0.7, divide_by)
    for seed in range(4):
        pred, target = deltas(seed=seed)
        pairs = [reference.authentic_smooth_l1(d, 0.1) for d in (pred - target).flatten().tolist()]
        weights = density.weights([norm for _, norm in pairs])
        wanted = torch.tensor([w * value for w, (value, _) in zip(weights, pairs)], dtype=torch.float64)
        torch.testing.assert_close(loss(pred, target), wanted.view(-1, 4))
        loss.accumulate(pred, target)
        loss.density.end_iteration(0)
        density.learn([norm for _, norm in pairs])


def test_ghm_r_by_hand():
    """mu 3: errors of 4, 4, 4, 0 have the losses 2, 2, 2, 0 and norms 0.8, 0.8, 0.8, 0; two bins weigh 4/6 and 4/2."""
    loss = GHMR(mu=3.0, bins=2, momentum=0.0)
    found = loss(torch.tensor([[4.0, -4.0, 4.0, 0.0]]), torch.zeros(1, 4))
    torch.testing.assert_close(found, torch.tensor([[4 / 3, 4 / 3, 4 / 3, 0.0]]))


@pytest.mark.parametrize("num", [0, 1, 12])
def test_ghm_r_of_one_bin_and_no_mu_is_detectron2s_l1_to_the_bit(num):
    pred, target = deltas(num, dtype=torch.float32)
    ours, theirs = result(GHMR(mu=0.0, bins=1), pred, target), result(SmoothL1(), pred, target)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_batch_without_boxes_leaves_the_weights_as_they_are():
    loss = GHMR()
    for num in (12, 0):
        pred, target = deltas(num)
        loss.accumulate(pred, target)
        loss.density.end_iteration(0)
    pred, target = deltas(seed=1)
    other = GHMR()
    other.accumulate(*deltas(12))
    other.density.end_iteration(0)
    torch.testing.assert_close(
        loss.density.counts / loss.density.counts.sum(), other.density.counts / other.density.counts.sum()
    )


# --- KL --------------------------------------------------------------------------------------------------------------


def test_kl_loss():
    pred, target = deltas()
    log_variances = torch.randn(12, 4, dtype=torch.float64)
    rows = zip((3 * (pred - target)).flatten().tolist(), log_variances.flatten().tolist())
    wanted = torch.tensor([reference.kl(d, a) for d, a in rows], dtype=torch.float64).view(-1, 4)
    torch.testing.assert_close(KLLoss()(3 * pred, 3 * target, log_variances), wanted)


@pytest.mark.parametrize("num", [0, 1, 12])
def test_kl_loss_of_unit_variances_is_detectron2s_smooth_l1_to_the_bit(num):
    pred, target = deltas(num, dtype=torch.float32)
    pred = (4 * pred).detach()
    ours = result(KLLoss(), pred, target, torch.zeros(num, 4))
    theirs = result(lambda p, t: smooth_l1_loss(p, t, beta=1.0, reduction="none"), pred, target)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_best_variance_of_a_small_error_is_its_square():
    """He et al., sec. 3.2: the loss is smallest where the variance is the squared error."""
    log_variances = torch.tensor([2 * math.log(0.3)], requires_grad=True)
    KLLoss()(torch.tensor([0.3]), torch.tensor([0.0]), log_variances).sum().backward()
    assert log_variances.grad.item() == pytest.approx(0, abs=1e-6)


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [0, 1, 12])
@pytest.mark.parametrize("make", [GHMR, KLLoss])
def test_every_batch_trains(make, num):
    pred, target = deltas(num, dtype=torch.float32)
    more = [torch.zeros(num, 4, requires_grad=True)] if make is KLLoss else []
    loss = make()(pred, target, *more)
    loss.sum().backward()
    assert loss.shape == (num, 4) and all(x.grad.isfinite().all() for x in (pred, *more))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1e4])
def test_ghm_r_is_finite_for_errors_of_any_size(size):
    for loss in (GHMR(), GHMR(mu=0.0)):
        value, gradient = result(loss, torch.full((2, 4), size), torch.zeros(2, 4))
        assert value.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize(
    "cls, options, named",
    [
        (GHMR, dict(mu=-1.0), "mu"),
        (GHMR, dict(bins=0), "bins"),
        (GHMR, dict(momentum=1.0), "momentum"),
        (GHMR, dict(divide_by="none"), "divide_by"),
        (GHMR, dict(loss_weight=math.inf), "loss_weight"),
        (KLLoss, dict(coordinates="centers"), "coordinates"),
    ],
)
def test_bad_settings_are_refused_by_name(cls, options, named):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {named} must be .*[,;] got"):
        cls(**options)
    node = {"NAME": cls.__name__, **{name.upper(): value for name, value in options.items()}}
    said = rf"MODEL.BALANCED.BOX_LOSS(\.{named.upper()}: must|(\.\w+)?: {cls.__name__}: {named})"
    with pytest.raises(ValueError, match=said):
        build_component(BOX_LOSS_REGISTRY, node, "MODEL.BALANCED.BOX_LOSS")
