"""PANet's bottom-up path: its arithmetic on FPN's own levels, its keys, its extra levels."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn
from torch.nn import functional as F

from d2_balanced.modeling.backbone import PAFPN

CHANNELS = 4


class Pools(Backbone):
    """A bottom-up network that only averages: res2..res5 at strides 4..32."""

    strides = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}

    def forward(self, x):
        return {name: F.avg_pool2d(x, stride) for name, stride in self.strides.items()}

    def output_shape(self):
        return {name: ShapeSpec(channels=3, stride=stride) for name, stride in self.strides.items()}


def pyramid(cls, top_block=None, **arguments):
    torch.manual_seed(0)
    return cls(Pools(), list(Pools.strides), CHANNELS, top_block=top_block, **arguments)


def pafpn_and_its_fpn(top_block=None):
    aggregated, plain = pyramid(PAFPN, top_block), pyramid(FPN, top_block)
    plain.load_state_dict(aggregated.state_dict(), strict=False)
    return aggregated, plain


def test_path_on_fpn_levels():
    aggregated, plain = pafpn_and_its_fpn()
    image = torch.randn(1, 3, 96, 160)
    outputs, levels = aggregated(image), plain(image)
    expected = levels["p2"]
    torch.testing.assert_close(outputs["p2"], expected)
    for i in (3, 4, 5):
        down, output = getattr(aggregated, f"pafpn_down{i}"), getattr(aggregated, f"pafpn_output{i}")
        step = F.conv2d(expected, down.weight, down.bias, stride=2, padding=1).clamp(min=0)
        expected = F.conv2d(step + levels[f"p{i}"], output.weight, output.bias, padding=1).clamp(min=0)
        torch.testing.assert_close(outputs[f"p{i}"], expected)


def test_released_form_passes_the_sums_on_and_convolves_every_level():
    """Libra R-CNN's release: no ReLU, P2 convolved as well, and each level's own convolution comes after what is passed on."""
    aggregated, plain = pyramid(PAFPN, LastLevelMaxPool(), form="released"), pyramid(FPN, LastLevelMaxPool())
    plain.load_state_dict(aggregated.state_dict(), strict=False)
    image = torch.randn(1, 3, 96, 160)
    outputs, levels = aggregated(image), plain(image)
    total = None
    for i in (2, 3, 4, 5):
        below, total = total, levels[f"p{i}"]
        if below is not None:
            down = getattr(aggregated, f"pafpn_down{i}")
            total = total + F.conv2d(below, down.weight, down.bias, stride=2, padding=1)
        output = getattr(aggregated, f"pafpn_output{i}")
        torch.testing.assert_close(outputs[f"p{i}"], F.conv2d(total, output.weight, output.bias, padding=1))
    assert (outputs["p5"] < 0).any() and torch.equal(outputs["p6"], outputs["p5"][..., ::2, ::2])
    with pytest.raises(ValueError, match="PAFPN: form must be one of panet, released, got 'libra'"):
        pyramid(PAFPN, form="libra")


def test_keys_are_fpns_and_the_paths():
    aggregated, plain = pafpn_and_its_fpn()
    added = set(aggregated.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(aggregated.state_dict())
    convs = [f"pafpn_{kind}{i}" for kind in ("down", "output") for i in (3, 4, 5)]
    assert added == {f"{conv}.{parameter}" for conv in convs for parameter in ("weight", "bias")}
    assert aggregated.output_shape() == plain.output_shape()


def test_norm_replaces_the_bias():
    keys = pyramid(PAFPN, norm="BN").state_dict()
    assert "pafpn_down3.norm.weight" in keys and "pafpn_down3.bias" not in keys


def test_extra_level_by_max_pooling_is_made_of_the_aggregated_level():
    outputs = pyramid(PAFPN, LastLevelMaxPool())(torch.randn(1, 3, 96, 160))  # p5 is 3 x 5
    assert torch.equal(outputs["p6"], outputs["p5"][..., ::2, ::2])


@pytest.mark.parametrize("source", ["p5", "res5"])
def test_extra_levels_by_convolution(source):
    top_block = LastLevelP6P7(CHANNELS if source == "p5" else 3, CHANNELS, source)
    aggregated = pyramid(PAFPN, top_block)
    image = torch.randn(1, 3, 96, 160)
    outputs = aggregated(image)
    made_of = outputs["p5"] if source == "p5" else Pools()(image)["res5"]
    for name, expected in zip(("p6", "p7"), top_block(made_of)):
        torch.testing.assert_close(outputs[name], expected)


def test_gradient_of_the_coarsest_level_reaches_the_finest():
    aggregated = pyramid(PAFPN)
    for module in aggregated.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.constant_(module.bias, 1.0)  # so that ReLU does not cut the path
    aggregated(torch.rand(1, 3, 64, 64))["p5"].sum().backward()
    assert aggregated.fpn_output2.weight.grad.abs().sum() > 0
