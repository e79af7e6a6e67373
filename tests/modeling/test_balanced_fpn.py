"""Balanced feature pyramid: golden file 2, a scalar reference, odd sizes, tracing, checkpoints of plain FPN."""

import inspect

import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import shared_file

from d2_balanced.config import ConfigError, check_config, get_balanced_cfg, merge_overrides
from d2_balanced.modeling.backbone import BalancedFeatures, BalancedFPN, BalancedPAFPN, NonLocalBlock
from d2_balanced.modeling.backbone.resize import enlarge, shrink, shrink_by_gathering
from reference import pyramid as reference

GOLDEN_ATOL = 2e-5  # golden/README.md, file 2
TORCH_VERSION = tuple(int(number) for number in torch.__version__.split(".")[:2])
LAYERS = ("theta", "phi", "g", "out")
GOLDEN_REFINEMENTS = {"none": "none", "conv": "conv", "nl": "non_local"}


def golden():
    return np.load(shared_file("golden", "bfp.npz"), allow_pickle=False)


def load(block, arrays, prefix):
    """Put the golden weights of a non-local block into ours."""
    for layer in LAYERS:
        getattr(block, layer).weight.data = torch.from_numpy(arrays[f"{prefix}{layer}_weight"])
        getattr(block, layer).bias.data = torch.from_numpy(arrays[f"{prefix}{layer}_bias"])
    return block


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
    module = balanced_features(levels[0].shape[1], len(levels), refine_level, GOLDEN_REFINEMENTS[refine])
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


@pytest.mark.parametrize(
    "name, settings", [("noscale", {}), ("sane_scale", {"scaled": True}), ("dot", {"pairwise": "dot_product"})]
)
def test_golden_non_local_block(name, settings):
    arrays = golden()
    block = load(NonLocalBlock(8, reduction=2, **settings), arrays, "NL_")
    output = block(torch.from_numpy(arrays["NL_in"])).detach().numpy()
    np.testing.assert_allclose(output, arrays[f"NL_{name}_out"], rtol=0, atol=GOLDEN_ATOL)


def as_arrays(conv):
    weight = conv.weight.detach().double().numpy()
    return weight.reshape(weight.shape[:2]), conv.bias.detach().double().numpy()


@pytest.mark.parametrize("refine_level", range(5))
@pytest.mark.parametrize("height, width", [(17, 23), (32, 48), (5, 9), (1, 1)])
def test_equals_the_scalar_reference(refine_level, height, width):
    torch.manual_seed(0)
    levels = random_levels(height, width, channels=2)
    module = balanced_features(2, 5, refine_level, "none")
    expected = reference.balanced([x[0].double().numpy() for x in levels], refine_level)
    for output, wanted in zip(module(levels), expected):
        np.testing.assert_allclose(output[0].numpy(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_non_local_equals_the_scalar_reference(scaled):
    torch.manual_seed(0)
    block = NonLocalBlock(6, reduction=2, scaled=scaled, zero_init=False)
    x = torch.randn(2, 6, 3, 5)
    scale = 3**-0.5 if scaled else 1.0
    for image, output in zip(x, block(x)):
        wanted = reference.non_local(image.double().numpy(), *(as_arrays(getattr(block, n)) for n in LAYERS), scale)
        np.testing.assert_allclose(output.detach().numpy(), wanted, rtol=0, atol=1e-5)


def test_non_local_starts_as_the_identity_unless_told_otherwise():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(NonLocalBlock(8)(x), x)
    assert not torch.equal(NonLocalBlock(8, zero_init=False)(x), x)


def test_non_local_with_large_embeddings_keeps_the_size():
    """R3-CNN's 7x7 embeddings on 7x7 RoI features; no RoI at all gives no output."""
    block = NonLocalBlock(8, reduction=2, scaled=True, kernel_size=7, zero_init=False)
    assert block(torch.randn(3, 8, 7, 7)).shape == (3, 8, 7, 7)
    assert block(torch.zeros(0, 8, 7, 7)).shape == (0, 8, 7, 7)


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product"])
def test_non_local_gathers_from_positions_whatever_their_order(pairwise):
    torch.manual_seed(0)
    block, x = NonLocalBlock(4, pairwise=pairwise, zero_init=False), torch.randn(1, 4, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[..., order])


@pytest.mark.skipif(TORCH_VERSION < (2, 2), reason="torch has no fused attention on the CPU before 2.2")
def test_attention_over_a_large_map_does_not_hold_the_matrix_of_position_pairs():
    x = torch.randn(1, 4, 48, 80, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        NonLocalBlock(4, zero_init=False)(x).sum().backward()
    assert max(saved) <= 4 * 48 * 80  # no tensor that backward keeps is larger than a feature map


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 4), st.integers(0, 2**31 - 1))
def test_shrink_by_gathering_equals_adaptive_max_pooling(height, width, halvings, seed):
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    ratio = 2**halvings
    size = (-(-height // ratio), -(-width // ratio))
    assert torch.equal(shrink_by_gathering(x, size, ratio), shrink(x, size, ratio))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 4), st.sampled_from(list(GOLDEN_REFINEMENTS.values())))
def test_sizes_are_kept_and_gradients_reach_every_level(height, width, refine_level, refinement):
    levels = [x.requires_grad_() for x in random_levels(height, width, batch=2)]
    outputs = balanced_features(4, 5, refine_level, refinement)(levels)
    assert [o.shape for o in outputs] == [x.shape for x in levels]
    sum(o.square().sum() for o in outputs).backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in levels)


def test_resizing_to_the_same_size_changes_nothing():
    x = torch.randn(1, 2, 7, 10)
    assert torch.equal(shrink(x, (7, 10), 1), x) and torch.equal(enlarge(x, (7, 10)), x)


@pytest.mark.parametrize("refinement", list(GOLDEN_REFINEMENTS.values()))
def test_traced_on_one_odd_size_runs_on_others(refinement):
    torch.manual_seed(0)
    module = balanced_features(4, 5, 2, refinement).eval()
    traced = torch.jit.trace(module, (random_levels(51, 77),))
    for size in [(51, 77), (33, 35), (64, 96), (1, 3)]:
        levels = random_levels(*size)
        for ours, theirs in zip(module(levels), traced(levels)):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("refinement", list(GOLDEN_REFINEMENTS.values()))
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


@pytest.mark.parametrize("refinement", list(GOLDEN_REFINEMENTS.values()))
def test_under_autocast_it_is_the_same_pyramid_at_lower_precision(refinement):
    torch.manual_seed(0)
    module, levels = balanced_features(8, 5, 2, refinement), random_levels(40, 60, channels=8)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module(levels)
    for output, wanted in zip(outputs, module(levels)):
        torch.testing.assert_close(output.float(), wanted, rtol=0.05, atol=0.05)


# ------------------------------------------------------------------------------------------------- the backbones


def tiny_cfg(name, *overrides):
    cfg = get_balanced_cfg()
    stages = ["res3", "res4", "res5"] if "retinanet" in name else ["res2", "res3", "res4", "res5"]
    tiny = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "8"]
    tiny += ["MODEL.RESNETS.OUT_FEATURES", str(stages), "MODEL.FPN.IN_FEATURES", str(stages)]
    merge_overrides(cfg, [*tiny, "MODEL.BACKBONE.NAME", name, *overrides])
    return cfg


def retinanet_of(name):
    return name.replace("build_resnet", "build_retinanet_resnet")


@pytest.mark.parametrize("kind, parts", [("balanced_fpn", {"balance"}), ("balanced_pafpn", {"balance", "pafpn"})])
@pytest.mark.parametrize("of", [str, retinanet_of])
def test_plain_fpn_checkpoint_lacks_only_the_refinement(kind, parts, of):
    plain = build_backbone(tiny_cfg(of("build_resnet_fpn_backbone")))
    balanced = build_backbone(tiny_cfg(of(f"build_resnet_{kind}_backbone")))
    result = balanced.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[0].split("_")[0] for key in result.missing_keys} == parts
    assert balanced.output_shape() == plain.output_shape()


@pytest.mark.parametrize("kind", ["balanced_fpn", "pafpn", "balanced_pafpn"])
@pytest.mark.parametrize("of, levels", [(str, "p2 p3 p4 p5 p6"), (retinanet_of, "p3 p4 p5 p6 p7")])
def test_every_parameter_of_a_backbone_gets_a_gradient(kind, of, levels):
    torch.manual_seed(0)
    backbone = build_backbone(tiny_cfg(of(f"build_resnet_{kind}_backbone"), "MODEL.BACKBONE.FREEZE_AT", "0"))
    features = backbone(torch.randn(1, 3, 96, 160))
    assert list(features) == levels.split()
    for name, shape in backbone.output_shape().items():
        assert features[name].shape[1] == shape.channels == 8
    sum(x.square().mean() for x in features.values()).backward()
    unused = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unused == []  # a parameter without a gradient would stop DDP


def test_without_refinement_it_adds_the_mean_level_to_fpn():
    torch.manual_seed(0)
    cfg = tiny_cfg("build_resnet_balanced_fpn_backbone", "MODEL.BALANCED.FPN.REFINEMENT", "none")
    balanced, plain = build_backbone(cfg), build_backbone(tiny_cfg("build_resnet_fpn_backbone"))
    plain.load_state_dict(balanced.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = reference.balanced([x[0].double().numpy() for x in plain(image).values()], refine_level=2)
        for output, level in zip(balanced(image).values(), wanted):
            np.testing.assert_allclose(output[0].numpy(), level, rtol=0, atol=1e-5)


def test_whole_backbone_traced_on_one_odd_size_runs_on_another():
    torch.manual_seed(0)
    backbone = build_backbone(tiny_cfg("build_resnet_balanced_pafpn_backbone")).eval()
    with torch.no_grad():
        traced = torch.jit.trace(backbone, torch.randn(1, 3, 160, 96), strict=False)  # P5 is 5 x 3, P6 is 3 x 2
        image = torch.randn(1, 3, 224, 288)
        outputs, wanted = traced(image), backbone(image)
    for name in wanted:
        torch.testing.assert_close(outputs[name], wanted[name], rtol=0, atol=1e-5)


def test_extra_levels_of_other_channels_are_refused():
    from detectron2.modeling.backbone.fpn import LastLevelP6P7

    bottom_up = build_backbone(tiny_cfg("build_retinanet_resnet_fpn_backbone")).bottom_up
    top_block = LastLevelP6P7(512, 16)
    for pyramid in (BalancedFPN, BalancedPAFPN):
        with pytest.raises(ValueError, match=r"channels of all levels must be equal.*\[8, 8, 8, 16, 16\]"):
            pyramid(bottom_up, ["res3", "res4", "res5"], 8, top_block=top_block)


@pytest.mark.parametrize("kind", ["balanced_fpn", "balanced_pafpn"])
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("REFINE_LEVEL", "5", r"refine_level must be in 0\.\.4.*got 5"),
        ("REFINE_LEVEL", "-1", r"refine_level must be in 0\.\.4.*got -1"),
        ("REFINEMENT", "nonlocal", "refinement must be one of none, conv, non_local, got 'nonlocal'"),
        ("REFINE_LEVL", "1", "refine_levl"),
    ],
)
def test_bad_settings_name_the_key(kind, key, value, message):
    cfg = tiny_cfg(f"build_resnet_{kind}_backbone", f"MODEL.BALANCED.FPN.{key}", value)
    check_config(cfg)
    with pytest.raises(ValueError, match=rf"MODEL\.BALANCED\.FPN: .*{message}"):
        build_backbone(cfg)


def test_settings_that_a_plain_backbone_would_ignore_are_refused():
    cfg = tiny_cfg("build_resnet_fpn_backbone", "MODEL.BALANCED.FPN.REFINE_LEVEL", "1")
    with pytest.raises(ConfigError, match="build_resnet_fpn_backbone would ignore it.*build_resnet_balanced_fpn"):
        check_config(cfg)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"reduction": 3}, "reduction must be a divisor of channels=8, got 3"),
        ({"kernel_size": 2}, "kernel_size must be odd and positive, got 2"),
        ({"pairwise": "gaussian"}, "pairwise must be one of embedded_gaussian, dot_product, got 'gaussian'"),
        ({"pairwise": "dot_product", "scaled": True}, "scaled=True needs pairwise='embedded_gaussian'"),
    ],
)
def test_bad_non_local_settings(arguments, message):
    with pytest.raises(ValueError, match=f"NonLocalBlock: {message}"):
        NonLocalBlock(8, **arguments)
