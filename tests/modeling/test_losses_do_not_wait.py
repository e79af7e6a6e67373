"""A training pass through a loss never waits for the device: no value is read, no size depends on values."""

import os

import pytest
import torch
from paths import ROOT

from d2_balanced.modeling import box_losses, cls_losses
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY, CLS_LOSS_REGISTRY

K, R = 5, 12


@pytest.fixture
def count(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "benchmarks"))
    from host_work import count

    return count


def own(registry, package):
    return sorted(name for name, target in registry if target.__module__.startswith(package.__name__))


def passes(loss, *inputs, **keywords):
    """A training pass, and the end of its iteration."""
    if hasattr(loss, "accumulate"):
        with torch.no_grad():
            loss.accumulate(*inputs, **keywords)
    loss(*inputs, **keywords).sum().backward()
    for module in loss.modules():
        if hasattr(module, "end_iteration"):
            module.end_iteration(0)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", own(CLS_LOSS_REGISTRY, cls_losses))
def test_classification_losses(name, form, count):
    cls = CLS_LOSS_REGISTRY.get(name)
    loss = cls(form=form) if form in cls.forms else cls()
    if hasattr(loss, "adopt"):
        loss.adopt(K)
    logits, labels = torch.randn(R, K + 1, requires_grad=True), torch.randint(K + 1, (R,))
    ious = {"ious": torch.rand(R)} if loss.wants_ious else {}
    assert count(lambda: passes(loss, logits, labels, **ious)).where == {}


@pytest.mark.parametrize("name", sorted(set(own(BOX_LOSS_REGISTRY, box_losses)) - {"DynamicSmoothL1"}))
def test_box_losses(name, count):
    loss = BOX_LOSS_REGISTRY.get(name)()
    target = torch.tensor([[10.0, 10.0, 30.0, 40.0]]).expand(R, 4)
    pred = (torch.randn(R, 56) if name == "BucketLoss" else target + torch.randn(R, 4)).requires_grad_()
    more = {"log_variances": torch.zeros(R, 4, requires_grad=True)} if name == "KLLoss" else {}
    assert count(lambda: passes(loss, pred, target, **more)).where == {}
