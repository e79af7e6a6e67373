"""R-CNN gradient annealing scales what it should, when it should, and nothing else."""

import copy
import json

import pytest
import torch
from detectron2.solver.build import maybe_add_gradient_clipping
from paths import shared_file
from torch import nn

from annealing_toys import Detector, data
from d2_balanced.config import get_balanced_cfg
from d2_balanced.engine.gradient_annealing import GradientAnnealing, annealing_factor
from d2_balanced.engine.trainer import BalancedTrainer


def train(hook_arguments=None, iterations=6, clip=None, accumulate=1, start=0):
    """Train; returns the model and, per iteration, the gradients that the optimizer saw."""
    model = Detector()
    cfg = get_balanced_cfg()
    optimizer = torch.optim.SGD
    if clip:
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip
        optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    optimizer = optimizer(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    trainer = BalancedTrainer(model, data(), optimizer, accumulate=accumulate)
    if hook_arguments is not None:
        trainer.register_hooks([GradientAnnealing(model, **hook_arguments)])
    seen = []
    step = optimizer.step
    optimizer.step = lambda *args: (seen.append({n: p.grad.clone() for n, p in model.named_parameters()}), step(*args))
    trainer.train(start, iterations)
    return model, seen


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_golden_factor():
    with open(shared_file("golden", "prm_rga.json")) as f:
        rows = json.load(f)["rga_lambda"]["rows"]
    assert rows
    for initial, iteration, total, expected in rows:
        assert annealing_factor(initial, iteration, total) == pytest.approx(expected, abs=1e-9)


def test_golden_sgd():
    with open(shared_file("golden", "prm_rga.json")) as f:
        golden = json.load(f)["rga_sgd"]
    model = nn.Module()
    model.backbone = nn.Module()
    model.roi_heads = nn.Module()
    model.roi_heads.box_head = nn.Module()
    groups = {"head": model.roi_heads.box_head, "backbone": model.backbone}
    for name, module in groups.items():
        module.weight = nn.Parameter(torch.tensor(golden["params"][name][0], dtype=torch.float64))
    # A loss whose gradient with respect to each parameter is the golden one.
    gradients = {n: torch.tensor(g, dtype=torch.float64) for n, g in golden["grads"].items()}
    model.forward = lambda t: {"loss": sum((m.weight * gradients[n][t[0]]).sum() for n, m in groups.items())}
    optimizer = torch.optim.SGD(
        model.parameters(), lr=golden["lr"], momentum=golden["momentum"], weight_decay=golden["weight_decay"]
    )
    trainer = BalancedTrainer(model, [[t] for t in range(golden["T"])], optimizer)
    trainer.register_hooks([GradientAnnealing(model, initial=golden["lambda0"], total=golden["T"])])
    for t in range(golden["T"]):
        for name, module in groups.items():
            torch.testing.assert_close(
                module.weight.detach(), torch.tensor(golden["params"][name][t], dtype=torch.float64), atol=1e-9, rtol=0
            )
        trainer.data_loader = [[t]] * (t + 1)
        trainer.train(t, t + 1)


def test_factor_one_changes_nothing():
    assert equal(train()[0], train({"initial": 1.0})[0])


def test_hand_computed_first_step():
    """One step of SGD: w - lr (lambda g + weight decay w) for the box modules, lambda = 1 elsewhere."""
    start = Detector()
    sum(start(data()[0]).values()).backward()
    model, _ = train({"initial": 5.0}, iterations=1)
    for (name, p), (_, before) in zip(model.named_parameters(), start.named_parameters()):
        factor = 5.0 if "box_" in name else 1.0
        expected = before - 0.1 * (factor * before.grad + 0.01 * before)
        torch.testing.assert_close(p, expected.detach())


def test_shared_layers_see_the_gradients_they_would_see_without_it():
    _, plain = train(iterations=1)
    _, annealed = train({"initial": 7.0}, iterations=1)
    for name, gradient in plain[0].items():
        if "box_" in name:
            torch.testing.assert_close(annealed[0][name], 7 * gradient)
        else:
            assert torch.equal(annealed[0][name], gradient)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_scaled_once(accumulate):
    _, whole = train({"initial": 7.0}, iterations=1)
    _, parts = train({"initial": 7.0}, iterations=1, accumulate=accumulate)
    for name in whole[0]:
        torch.testing.assert_close(whole[0][name], parts[0][name])


@pytest.mark.parametrize("clip", [("value", 0.01), ("norm", 0.01)])
def test_clipping_sees_scaled_gradients(clip):
    """Clipping comes after the scaling, so no clipped gradient exceeds the limit."""
    model, _ = train({"initial": 7.0}, iterations=1, clip=clip)
    for (name, p), (_, before) in zip(model.named_parameters(), Detector().named_parameters()):
        step = (before - p).detach() / 0.1 - 0.01 * before
        size = step.abs().max() if clip[0] == "value" else step.norm()
        assert size <= 0.01 * (1 + 1e-4), name


def test_factor_depends_on_the_iteration_alone():
    """Iterations 3 to 5 of a resumed run scale as in the run that was never stopped."""
    hook = GradientAnnealing(Detector(), initial=7.0)
    factors = []
    for iteration in range(6):
        hook.trainer = type("Trainer", (), {"iter": iteration, "max_iter": 6})()
        factors.append(hook.factor())
    assert factors == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    hook.annealed = False
    assert hook.factor() == 7.0


def test_mask_head_only_if_asked():
    boxes = GradientAnnealing(Detector())
    with_mask = GradientAnnealing(Detector(), parameters="box_and_mask")
    assert len(boxes.parameters) == 4 and len(with_mask.parameters) == 6


def test_without_a_model_it_takes_the_trainer_s():
    model, given = Detector(), train({"initial": 7.0}, iterations=2)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    trainer = BalancedTrainer(model, data(), optimizer)
    trainer.register_hooks([GradientAnnealing(initial=7.0)])
    trainer.train(0, 2)
    assert equal(model, given)


def test_frozen_parameters_and_missing_gradients_are_left_alone():
    model = Detector()
    model.roi_heads.box_head.requires_grad_(False)
    hook = GradientAnnealing(model)
    assert len(hook.parameters) == 2
    before = copy.deepcopy(model)
    trainer = BalancedTrainer(model, data(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([hook])
    trainer.train(0, 2)
    assert torch.equal(before.roi_heads.box_head.weight, model.roi_heads.box_head.weight)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"initial": 0.5}, ["lambda_0", "at least 1", "0.5"]),
        ({"initial": float("nan")}, ["lambda_0", "nan"]),
        ({"initial": float("inf")}, ["lambda_0", "inf"]),
        ({"total": 0}, ["total", "from 1", "0"]),
        ({"total": 2.5}, ["total", "whole number", "2.5"]),
        ({"parameters": "box_head("}, ["parameters", "regular expression", "box_head("]),
        ({"parameters": "no_such_module"}, ["no_such_module", "two-stage"]),
    ],
)
def test_bad_settings(arguments, words):
    with pytest.raises(ValueError) as error:
        GradientAnnealing(Detector(), **arguments)
    assert all(word in str(error.value) for word in words)
