"""detectron2's deformable convolutions train on every device: torchvision's operator where theirs cannot run."""

import pytest
import torch
from d2_balanced.compat import has_cuda_ops
from d2_balanced.modeling.backbone import deform_conv as lent
from detectron2.layers import DeformConv, ModulatedDeformConv
from detectron2.modeling.backbone.resnet import DeformBottleneckBlock
from reference.deform_conv import deform_conv

SETTINGS = [  # stride, padding, dilation, groups, deformable groups
    (1, 1, 1, 1, 1),
    (2, 1, 1, 2, 1),
    (1, 2, 2, 1, 2),
    (2, 0, 1, 2, 2),
]
KINDS = pytest.mark.parametrize("modulated", [False, True], ids=["v1", "v2"])
VARIANTS = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def make(modulated, settings, dtype=torch.float64):
    """A module, and its inputs: images, offsets of some pixels that also leave the image, and a mask for version 2."""
    torch.manual_seed(0)
    names = ("stride", "padding", "dilation", "groups", "deformable_groups")
    module = (ModulatedDeformConv if modulated else DeformConv)(4, 6, 3, **dict(zip(names, settings))).to(dtype)
    if modulated:
        torch.nn.init.normal_(module.bias)
    images = torch.randn(2, 4, 5, 6, dtype=dtype)
    stride, padding, dilation, _, deformable_groups = settings
    height, width = ((n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in images.shape[2:])
    offset = 1.5 * torch.randn(2, 18 * deformable_groups, height, width, dtype=dtype)
    mask = [torch.rand(2, 9 * deformable_groups, height, width, dtype=dtype)] if modulated else []
    return module, [images, offset, *mask]


@KINDS
@VARIANTS
def test_it_is_the_papers_sum(modulated, settings):
    module, inputs = make(modulated, settings)
    images, offset, mask = (*inputs, None)[:3]
    with torch.no_grad():
        expected = deform_conv(images, offset, mask, module.weight, module.bias, *settings)
        assert torch.allclose(module(*inputs), expected, rtol=0, atol=1e-10)


@KINDS
@VARIANTS
def test_gradients_are_those_of_finite_differences(modulated, settings):
    module, inputs = make(modulated, settings)
    parameters = list(module.parameters())
    assert len(parameters) == 1 + modulated
    leaves = [x[:1].clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: module(*x[: len(leaves)]), (*leaves, *parameters), fast_mode=True)


@KINDS
def test_without_offsets_it_is_a_convolution(modulated):
    module, (images, offset, *mask) = make(modulated, SETTINGS[0])
    plain = torch.nn.functional.conv2d(images, module.weight, module.bias, padding=1)
    assert torch.allclose(module(images, torch.zeros_like(offset), *map(torch.ones_like, mask)), plain, atol=1e-12)


@KINDS
def test_a_block_trains_in_mixed_precision(modulated):
    torch.manual_seed(0)
    settings = dict(bottleneck_channels=4, norm="BN", deform_modulated=modulated)
    block = DeformBottleneckBlock(4, 8, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(torch.randn(2, 4, 6, 6))
    out.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


@pytest.mark.skipif(not (torch.cuda.is_available() and has_cuda_ops()), reason="needs detectron2's CUDA operators")
@KINDS
@VARIANTS
def test_it_equals_the_compiled_operator_on_cuda(modulated, settings, monkeypatch):
    """Values and gradients, up to the order of summation."""
    module, inputs = make(modulated, settings, torch.float32)
    module.cuda()

    def values_and_gradients():
        leaves = [x.cuda().requires_grad_() for x in inputs]
        out = module(*leaves)
        return [out, *torch.autograd.grad(out.square().sum(), [*leaves, *module.parameters()])]

    compiled = values_and_gradients()
    monkeypatch.setattr(lent, "_has_kernel_for", lambda x: False)
    for ours, theirs in zip(values_and_gradients(), compiled):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
