"""SABL's box head: the class from fully connected layers, each side of the box from features along its own axis."""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import nn

from ...utils.numbers import require
from ..task_features import TaskHead, TaskShapes
from .conv_head import conv_relu_stack

__all__ = ["SideAwareHead"]

_KERNEL_SIZE = 3


class _AlongAxis(nn.Module):
    """A feature map as features along one axis: a mean across it by learnt weights, convolved, and made longer."""

    def __init__(self, channels, across, upsample):
        super().__init__()
        self.across = across  # the dimension that the mean is over
        self.attention = nn.Conv2d(channels, 1, kernel_size=1)
        self.conv = nn.Conv1d(channels, channels, _KERNEL_SIZE, padding=_KERNEL_SIZE // 2)
        self.upsample = nn.ConvTranspose1d(channels, channels, upsample, stride=upsample)
        nn.init.normal_(self.attention.weight, std=0.01)
        nn.init.zeros_(self.attention.bias)
        for layer in (self.conv, self.upsample):
            weight_init.c2_msra_fill(layer)

    def forward(self, x):
        """(R, C, h, w) -> (R, C, w) times ``upsample``, or h of it."""
        weights = self.attention(x).sigmoid()
        weights = weights / weights.sum(dim=self.across, keepdim=True)
        return self.upsample(self.conv((x * weights).sum(dim=self.across)).relu()).relu()


@ROI_BOX_HEAD_REGISTRY.register()
class SideAwareHead(TaskHead):
    """Side-aware features (Wang et al., Side-Aware Boundary Localization for More Precise Object Detection, ECCV 2020,
    the section on side-aware feature extraction): for the box coder :class:`~..box_coders.Buckets` a feature for each
    bucket of each side; the classifier reads fully connected layers on the RoI's features.

    Convolutions, then for each axis a mean across it, by sigmoids that sum to 1, a convolution along it, and a
    transposed one that makes it longer. The first half of an axis is its left or upper side, the second, from its end,
    the other.

    Args:
        input_shape: ``ShapeSpec`` of the pooled features.
        fc_dims: of the fully connected layers, one or more; the release's: 1024. In yacs: FC_DIM, NUM_FC times.
        conv_dim: channels of the convolutions, and of the sides' features; the release's: 256. In yacs: CONV_DIM.
        num_convs: convolutions on the RoI's features, 1 or more; the release's: 2. In yacs: NUM_CONV.
        conv_norm: their normalisation, see ``detectron2.layers.get_norm``. In yacs: NORM.
        upsample: how many buckets a position of the RoI's features becomes; times the RoI's size it is NUM_BUCKETS.

    Raises:
        ValueError: for a value out of range, or features that are not square.
    """

    @configurable
    def __init__(self, input_shape, *, fc_dims=(1024,), conv_dim=256, num_convs=2, conv_norm="", upsample=2):
        super().__init__(input_shape, fc_dims, num_convs)
        require(self, "upsample", upsample, at_least=1, integer=True)
        length = input_shape.width * upsample
        if input_shape.height != input_shape.width or length % 2:
            size = f"{input_shape.height} x {input_shape.width}"
            raise ValueError(
                f"SideAwareHead: the RoI's features (MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION) must be square, and times "
                f"upsample={upsample} an even number long; got {size}"
            )
        self.convs = conv_relu_stack(input_shape.channels, [conv_dim] * num_convs, _KERNEL_SIZE, conv_norm)
        self.along_x = _AlongAxis(conv_dim, across=2, upsample=upsample)
        self.along_y = _AlongAxis(conv_dim, across=3, upsample=upsample)
        self._shape = ShapeSpec(channels=conv_dim, height=4, width=length // 2)

    def forward(self, x):
        """Pooled features (R, C, h, h) -> those of the classifier (R, fc_dims[-1]) and of the buckets of the left,
        upper, right and lower side, each from the outer end, (R, 4, S, conv_dim)."""
        for_boxes = self.convs(x)
        axes = self.along_x(for_boxes), self.along_y(for_boxes)
        sides = torch.stack([*axes, *(axis.flip(2) for axis in axes)], dim=1)  # (R, 4, conv_dim, 2 S)
        return self.fc_head(x), sides[..., : self._shape.width].transpose(2, 3)

    @property
    def output_shape(self):
        """The ``ShapeSpec`` of each."""
        return TaskShapes(cls=self.fc_head.output_shape, box=self._shape)
