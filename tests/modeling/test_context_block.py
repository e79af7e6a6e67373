"""Global context blocks: a scalar reference, and a ResNet that keeps its keys and starts unchanged."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone

from d2_balanced.config import get_balanced_cfg, merge_overrides
from d2_balanced.modeling.backbone import ContextBlock, add_context_blocks
from reference import pyramid as reference


def resnet(depth=18):
    cfg = get_balanced_cfg()
    tiny = ["MODEL.RESNETS.DEPTH", str(depth), "MODEL.RESNETS.RES2_OUT_CHANNELS", "64" if depth < 50 else "256"]
    merge_overrides(cfg, [*tiny, "MODEL.RESNETS.OUT_FEATURES", "['res2', 'res3', 'res4', 'res5']"])
    torch.manual_seed(0)
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def arrays(module):
    weight = module.weight.detach().double().numpy()
    return weight.reshape([n for n in weight.shape if n > 1]), module.bias.detach().double().numpy().ravel()


def test_equals_the_scalar_reference():
    torch.manual_seed(0)
    block = ContextBlock(8, ratio=0.25)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, 3, 5)
    attend = block.attend.weight.detach().double().numpy().reshape(1, 8), block.attend.bias.detach().double().numpy()
    for image, output in zip(x, block(x)):
        wanted = reference.global_context(
            image.double().numpy(), attend, arrays(block.squeeze), arrays(block.norm), arrays(block.expand)
        )
        np.testing.assert_allclose(output.detach().numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth, last_conv", [(18, "conv2"), (50, "conv3")])
def test_resnet_keeps_its_keys_and_starts_unchanged(depth, last_conv):
    plain, with_context = resnet(depth).eval(), add_context_blocks(resnet(depth)).eval()
    result = with_context.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[0] for key in result.missing_keys} == {"res3", "res4", "res5"}
    assert all(f".{last_conv}.activation." in key for key in result.missing_keys)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for name, features in plain(image).items():
            assert torch.equal(with_context(image)[name], features)


def test_block_acts_before_the_residual_addition():
    net = add_context_blocks(resnet(), stages=["res3"])
    block = net.res3[0].eval()
    torch.nn.init.normal_(block.conv2.activation.expand.weight)
    x = torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        branch = block.conv2.norm(torch.nn.functional.conv2d(block.conv1(x).relu(), block.conv2.weight, padding=1))
        expected = (block.conv2.activation(branch) + block.shortcut(x)).relu()
        torch.testing.assert_close(block(x), expected)


def test_parameters_get_gradients():
    net = add_context_blocks(resnet(), stages=["res5"])
    net(torch.randn(1, 3, 64, 64))["res5"].square().sum().backward()
    assert net.res5[0].conv2.activation.expand.weight.grad.abs().sum() > 0


def test_bad_settings():
    with pytest.raises(ValueError, match="stages must be among .*res2.*got 'res6'"):
        add_context_blocks(resnet(), stages=["res6"])
    for ratio in (0, 1.5, 0.01):
        with pytest.raises(ValueError, match=rf"ContextBlock: ratio must be in \(0, 1\].*got {ratio}"):
            ContextBlock(8, ratio)
