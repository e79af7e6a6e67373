"""Box losses: formulas, golden file 1, both forms, finiteness everywhere, AMP, bad settings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import shared_file
from reference import losses as reference

from d2_balanced.modeling.spec import build_component
from d2_balanced.modeling.box_losses import BalancedL1, SmoothL1, balanced_l1_loss
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY

# alpha, gamma of Libra R-CNN's table 6
TABLE_6 = [(0.2, 1.0), (0.3, 1.0), (0.5, 1.0), (0.5, 1.5), (0.5, 2.0)]
FORMS = ["scaled", "released"]
RESIDUALS = [0.0, 1e-8, -1e-4, 0.01, -0.3, 0.7, 0.999, 1.0, -1.0, 1.5, -20.0]


def loss_and_gradient(loss, residual, dtype=torch.float64):
    pred = torch.as_tensor(residual, dtype=dtype).requires_grad_()
    value = loss(pred, torch.zeros_like(pred))
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]


@pytest.fixture(scope="module")
def golden():
    return np.load(shared_file("golden", "balanced_l1.npz"), allow_pickle=False)


# --- balanced L1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha, gamma", TABLE_6)
def test_balanced_l1_of_the_paper(alpha, gamma, form):
    value, gradient = loss_and_gradient(BalancedL1(alpha, gamma, form=form), RESIDUALS)
    expected = [reference.balanced_l1(x, alpha, gamma) for x in RESIDUALS]
    slope = [reference.balanced_l1_gradient(x, alpha, gamma) for x in RESIDUALS]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient, torch.tensor(slope, dtype=torch.float64), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "form, loss_name, grad_name", [("released", "loss", "grad"), ("scaled", "scaled_loss", "scaled_grad")]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_values_and_gradients(golden, form, loss_name, grad_name, dtype):
    assert len(golden["params"]) > 0
    for row, (alpha, gamma, beta) in enumerate(golden["params"]):
        value, gradient = loss_and_gradient(BalancedL1(alpha, gamma, beta, form), golden["x"], dtype)
        single = dtype == torch.float32
        kept = np.abs(np.abs(golden["x"]) - beta) > (1e-6 if single else -1)
        value_tolerance, gradient_tolerance = (
            (dict(rtol=1e-5, atol=1e-6),) * 2 if single else (dict(rtol=1e-9), dict(rtol=1e-9, atol=1e-7))
        )
        np.testing.assert_allclose(value.numpy()[kept], golden[loss_name][row][kept], **value_tolerance)
        np.testing.assert_allclose(gradient.numpy()[kept], golden[grad_name][row][kept], **gradient_tolerance)


def test_golden_reductions(golden):
    pred, target, weight = (torch.from_numpy(golden[f"red_{name}"]) for name in ("pred", "target", "weight"))
    assert len(golden["params"]) == len(golden["red_values"]) > 0
    for (alpha, gamma, beta), expected in zip(golden["params"], golden["red_values"]):
        loss = BalancedL1(alpha, gamma, beta, "released")(pred, target)
        weighted = weight * loss
        ours = [loss.mean(), loss.sum(), weighted.mean(), weighted.sum() / float(golden["red_avg_factor"])]
        np.testing.assert_allclose([x.item() for x in ours], expected, rtol=1e-9)


def test_released_form_equals_the_scaled_one_at_beta_1_only():
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)
    forms = {beta: [balanced_l1_loss(x, 0 * x, beta=beta, form=form) for form in FORMS] for beta in (1.0, 0.11)}
    assert torch.equal(*forms[1.0]) and not torch.allclose(*forms[0.11])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TABLE_6), st.floats(0.01, 10), st.floats(1e-6, 50), st.sampled_from([-1, 1]))
def test_scaled_gradient_is_bounded_by_gamma_and_points_outward(setting, beta, size, sign):
    value, gradient = loss_and_gradient(BalancedL1(*setting, beta=beta), [sign * size, 0.0])
    assert value[0] > 0 and 0 < sign * gradient[0] <= setting[1] * (1 + 1e-12)
    assert value[1] == 0 and gradient[1] == 0


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.05, 5),
    st.floats(0.05, 30),
    st.floats(1e-3, 1e3),
    st.sampled_from(FORMS),
    st.floats(-(2.0**100), 2.0**100, width=32),
)
def test_finite_everywhere(alpha, ratio, beta, form, residual):
    for value in loss_and_gradient(BalancedL1(alpha, alpha * ratio, beta, form), residual, torch.float32):
        assert torch.isfinite(value).all()


# --- SmoothL1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.11, 1.0, 2.0])
def test_smooth_l1(beta):
    value, gradient = loss_and_gradient(SmoothL1(beta), RESIDUALS)
    expected = torch.tensor([reference.smooth_l1(x, beta) for x in RESIDUALS], dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert torch.isfinite(gradient).all() and gradient[0] == 0


# --- both ------------------------------------------------------------------------------------------------------------

each_loss = pytest.mark.parametrize(
    "make", [SmoothL1, lambda **kw: SmoothL1(beta=1.0, **kw), BalancedL1, lambda **kw: BalancedL1(beta=0.11, **kw)]
)


@each_loss
def test_keeps_shape_and_graph_without_boxes(make):
    pred = torch.zeros(0, 4, requires_grad=True)
    loss = make()(pred, torch.zeros(0, 4))
    assert loss.shape == (0, 4)
    loss.sum().backward()
    assert pred.grad.shape == (0, 4)


@each_loss
def test_loss_weight(make):
    pred, target = torch.randn(2, 7, 4)
    torch.testing.assert_close(make(loss_weight=1.5)(pred, target), 1.5 * make()(pred, target))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_give_a_float32_loss_near_the_exact_one(make, dtype):
    torch.manual_seed(0)
    pred, target = torch.randn(7, 4).to(dtype).requires_grad_(), torch.randn(7, 4)
    loss = make()(pred, target)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and pred.grad.dtype == dtype and torch.isfinite(pred.grad).all()
    assert torch.equal(loss, make()(pred.float(), target))


@each_loss
def test_has_no_state(make):
    assert not make().state_dict() and not list(make().parameters())


@pytest.mark.parametrize(
    "cls, options, named",
    [
        (SmoothL1, dict(beta=-0.1), "beta"),
        (SmoothL1, dict(beta=math.inf), "beta"),
        (SmoothL1, dict(beta=math.nan), "beta"),
        (SmoothL1, dict(loss_weight=-1.0), "loss_weight"),
        (BalancedL1, dict(alpha=0.0), "alpha"),
        (BalancedL1, dict(gamma=-1.0), "gamma"),
        (BalancedL1, dict(gamma=100.0), "gamma"),
        (BalancedL1, dict(beta=0.0), "beta"),
        (BalancedL1, dict(beta=math.nan), "beta"),
        (BalancedL1, dict(form="sane"), "form"),
        (BalancedL1, dict(loss_weight=math.inf), "loss_weight"),
    ],
)
def test_bad_settings_are_refused_by_name(cls, options, named):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {named} must be .*[,;] got"):
        cls(**options)
    node = {"NAME": cls.__name__, **{name.upper(): value for name, value in options.items()}}
    said = rf"MODEL.BALANCED.BOX_LOSS(\.{named.upper()}: must|(\.\w+)?: {cls.__name__}: {named})"
    with pytest.raises(ValueError, match=said):
        build_component(BOX_LOSS_REGISTRY, node, "MODEL.BALANCED.BOX_LOSS")
