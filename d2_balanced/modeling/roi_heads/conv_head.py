"""R3-CNN's "advanced" box head: large convolutions and a non-local block instead of fully connected layers."""

import fvcore.nn.weight_init as weight_init
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import nn

from ...utils.numbers import Range
from ..backbone.non_local import NonLocalBlock

__all__ = ["NonLocalConvHead", "conv_relu_stack", "halved_channels", "large_non_local"]


def large_non_local(channels, reduction, kernel_size):
    """R3-CNN-L's non-local block: scaled, all of its convolutions large, and followed by ReLU as in the release."""
    sizes = {"kernel_size": kernel_size, "out_kernel_size": kernel_size}
    return nn.Sequential(NonLocalBlock(channels, reduction, scaled=True, **sizes), nn.ReLU())


def halved_channels(channels, conv_dims, owner, argument="conv_dims"):
    """``conv_dims``, or for ``None`` half and a quarter of ``channels``; ``ValueError`` naming owner and argument."""
    dims = [channels // 2, channels // 4] if conv_dims is None else list(conv_dims)
    if not dims or not all(map(Range(at_least=1, integer=True).holds, dims)):
        raise ValueError(f"{owner}: {argument} must be one or more positive numbers of channels, got {dims}")
    return dims


def conv_relu_stack(channels, conv_dims, kernel_size, norm=""):
    """Convolutions with ReLU that keep the size: (R, channels, h, w) -> (R, conv_dims[-1], h, w)."""
    convs = []
    for inputs, outputs in zip([channels, *conv_dims[:-1]], conv_dims):
        conv = Conv2d(
            inputs, outputs, kernel_size, padding=kernel_size // 2, bias=not norm, norm=get_norm(norm, outputs),
            activation=nn.ReLU(),
        )
        weight_init.c2_msra_fill(conv)
        convs.append(conv)
    return nn.Sequential(*convs)


@ROI_BOX_HEAD_REGISTRY.register()
class NonLocalConvHead(nn.Module):
    """A non-local block and large convolutions on the box features (R3-CNN sec. 4.3, "advanced": R3-CNN-L).

    Args:
        input_shape: ``ShapeSpec`` of the pooled features.
        conv_dims: channels of the convolutions; ``None``: half and a quarter of the input's (the paper's 128 and 64).
        kernel_size: odd; of the convolutions, also of those in the non-local block.
        reduction: of the non-local block's channels, a divisor of the input's.
        conv_norm: normalisation of the convolutions, see ``detectron2.layers.get_norm``.

    Raises ``ValueError`` for settings out of range.
    """

    @configurable
    def __init__(self, input_shape, *, conv_dims=None, kernel_size=7, reduction=2, conv_norm=""):
        super().__init__()
        dims = halved_channels(input_shape.channels, conv_dims, "NonLocalConvHead")
        self.non_local = large_non_local(input_shape.channels, reduction, kernel_size)
        self.convs = conv_relu_stack(input_shape.channels, dims, kernel_size, conv_norm)
        self._output_size = dims[-1] * input_shape.height * input_shape.width

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"input_shape": input_shape, "conv_norm": cfg.MODEL.ROI_BOX_HEAD.NORM}

    def forward(self, x):
        """Pooled features (R, C, h, w) -> (R, conv_dims[-1] h w)."""
        return self.convs(self.non_local(x)).flatten(1)

    @property
    def output_shape(self):
        """``ShapeSpec`` of the output, as detectron2's predictors ask for it."""
        return ShapeSpec(channels=self._output_size)
