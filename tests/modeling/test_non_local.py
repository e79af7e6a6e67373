"""Non-local block: golden file 2, a scalar reference, its start, its memory."""

import numpy as np
import pytest
import torch

from d2_balanced.modeling.backbone import NonLocalBlock
from pyramid_tools import GOLDEN_ATOL, LAYERS, golden, load
from reference import pyramid as reference

TORCH_VERSION = tuple(int(number) for number in torch.__version__.split(".")[:2])


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
    block = NonLocalBlock(8, reduction=2, scaled=True, kernel_size=7, zero_init=False, out_kernel_size=7)
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


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"reduction": 3}, "reduction must be a divisor of channels=8, got 3"),
        ({"kernel_size": 2}, "kernel_size must be odd and positive, got 2"),
        ({"out_kernel_size": 0}, "out_kernel_size must be odd and positive, got 0"),
        ({"pairwise": "gaussian"}, "pairwise must be one of embedded_gaussian, dot_product, got 'gaussian'"),
        ({"pairwise": "dot_product", "scaled": True}, "scaled=True needs pairwise='embedded_gaussian'"),
    ],
)
def test_bad_non_local_settings(arguments, message):
    with pytest.raises(ValueError, match=f"NonLocalBlock: {message}"):
        NonLocalBlock(8, **arguments)

