"""Balanced features: golden file 2, a scalar reference, odd sizes, tracing, ONNX, autocast."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_balanced.modeling.backbone import BalancedFeatures
from d2_balanced.modeling.backbone.resize import enlarge, shrink, shrink_by_gathering
from pyramid_tools import GOLDEN_ATOL, REFINEMENTS, golden, load
from reference import pyramid as reference


def balanced_features(channels, num_levels, refine_level, refinement):
    return BalancedFeatures([channels] * num_levels, [2**i for i in range(num_levels)], refine_level, refinement)


def random_levels(height, width, num_levels=5, channels=4, batch=1):
    """Maps of sizes ceil(H / 2^i), of random values."""
    return [torch.randn(batch, channels, -(-height // 2**i), -(-width // 2**i)) for i in range(num_levels)]


GOLDEN_CASES = [("A", 2, "conv")] + [
    (case, level, refine)
    for case, level in [("A", 2), ("B", 0), ("B", 2), ("B", 4), ("C", 1), ("C", 2)]
    for refine in ("none", "nl")
]


@pytest.mark.parametrize("case, refine_level, refine", GOLDEN_CASES)
def test_golden_pyramid(case, refine_level, refine):
    arrays = golden()
    levels = [torch.from_numpy(arrays[f"{case}_in{i}"]) for i in range(5) if f"{case}_in{i}" in arrays]
    module = balanced_features(levels[0].shape[1], len(levels), refine_level, REFINEMENTS[refine])
    if refine == "conv":
        module.refine.weight.data = torch.from_numpy(arrays[f"{case}_conv_weight"])
        module.refine.bias.data = torch.from_numpy(arrays[f"{case}_conv_bias"])
    if refine == "nl":
        load(module.refine, arrays, f"{case}_nl_")
    with torch.no_grad():
        gathered, outputs = module.gather(levels), module(levels)
        refined = module.refine(gathered)
    key = f"{case}_r{refine_level}"
    np.testing.assert_allclose(gathered.numpy(), arrays[f"{key}_gathered"], rtol=0, atol=GOLDEN_ATOL)
    if refine != "none":
        np.testing.assert_allclose(refined.numpy(), arrays[f"{key}_{refine}_refined"], rtol=0, atol=GOLDEN_ATOL)
    for i, output in enumerate(outputs):
        np.testing.assert_allclose(output.numpy(), arrays[f"{key}_{refine}_out{i}"], rtol=0, atol=GOLDEN_ATOL)


@pytest.mark.parametrize("refine_level", range(5))
@pytest.mark.parametrize("height, width", [(17, 23), (32, 48), (5, 9), (1, 1)])
def test_equals_the_scalar_reference(refine_level, height, width):
    torch.manual_seed(0)
    levels = random_levels(height, width, channels=2)
    module = balanced_features(2, 5, refine_level, "none")
    expected = reference.balanced([x[0].double().numpy() for x in levels], refine_level)
    for output, wanted in zip(module(levels), expected):
        np.testing.assert_allclose(output[0].numpy(), wanted, rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 4), st.integers(0, 2**31 - 1))
def test_shrink_by_gathering_equals_adaptive_max_pooling(height, width, halvings, seed):
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    ratio = 2**halvings
    size = (-(-height // ratio), -(-width // ratio))
    assert torch.equal(shrink_by_gathering(x, size, ratio), shrink(x, size, ratio))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 4), st.sampled_from(list(REFINEMENTS.values())))
def test_sizes_are_kept_and_gradients_reach_every_level(height, width, refine_level, refinement):
    levels = [x.requires_grad_() for x in random_levels(height, width, batch=2)]
    outputs = balanced_features(4, 5, refine_level, refinement)(levels)
    assert [o.shape for o in outputs] == [x.shape for x in levels]
    sum(o.square().sum() for o in outputs).backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in levels)


def test_resizing_to_the_same_size_changes_nothing():
    x = torch.randn(1, 2, 7, 10)
    assert torch.equal(shrink(x, (7, 10), 1), x) and torch.equal(enlarge(x, (7, 10)), x)


@pytest.mark.parametrize("refinement", list(REFINEMENTS.values()))
def test_traced_on_one_odd_size_runs_on_others(refinement):
    torch.manual_seed(0)
    module = balanced_features(4, 5, 2, refinement).eval()
    traced = torch.jit.trace(module, (random_levels(51, 77),))
    for size in [(51, 77), (33, 35), (64, 96), (1, 3)]:
        levels = random_levels(*size)
        for ours, theirs in zip(module(levels), traced(levels)):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("refinement", list(REFINEMENTS.values()))
@pytest.mark.parametrize("dynamo", [False, True], ids=["tracing exporter", "export-based exporter"])
def test_onnx_export_of_one_odd_size_runs_on_others(refinement, dynamo, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        pytest.skip("this torch has one exporter only, and does not take its choice")
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, names = OfFiveMaps(refinement).eval(), [f"p{i}" for i in range(2, 7)]
    axes = [{axis: f"{name}_{axis}" for axis in (2, 3)} for name in names]
    sizes = {"dynamic_axes": dict(zip(names, axes))}
    if dynamo:
        sizes = {"dynamic_shapes": [{i: torch.export.Dim(d, min=2, max=999) for i, d in a.items()} for a in axes]}
    path = str(tmp_path / "pyramid.onnx")
    torch.onnx.export(module, tuple(random_levels(51, 77)), path, input_names=names, dynamo=dynamo, **sizes)
    session = runtime.InferenceSession(path)
    for size in [(51, 77), (100, 168), (33, 35)]:
        levels = random_levels(*size)
        outputs = session.run(None, {name: x.numpy() for name, x in zip(names, levels)})
        for output, wanted in zip(outputs, module(*levels)):
            np.testing.assert_allclose(output, wanted.detach().numpy(), rtol=0, atol=1e-5)


class OfFiveMaps(torch.nn.Module):
    """ONNX graphs take tensors, not lists."""

    def __init__(self, refinement):
        super().__init__()
        self.balance = balanced_features(4, 5, 2, refinement)

    def forward(self, p2, p3, p4, p5, p6):
        return tuple(self.balance([p2, p3, p4, p5, p6]))


@pytest.mark.parametrize("refinement", list(REFINEMENTS.values()))
def test_under_autocast_it_is_the_same_pyramid_at_lower_precision(refinement):
    torch.manual_seed(0)
    module, levels = balanced_features(8, 5, 2, refinement), random_levels(40, 60, channels=8)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module(levels)
    for output, wanted in zip(outputs, module(levels)):
        torch.testing.assert_close(output.float(), wanted, rtol=0.05, atol=0.05)
