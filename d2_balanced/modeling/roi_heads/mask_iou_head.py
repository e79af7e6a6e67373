"""Mask IoU heads (Mask Scoring R-CNN; R3-CNN sec. 4.3): how well the predicted mask fits, from the mask's RoI features.

Shape shorthand: R: RoIs; F: foreground RoIs; C: channels; h, w: size of the pooled features; S: side of a mask, 2h;
K: foreground classes.
"""

from collections.abc import Sequence
from typing import Optional

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from ...utils.numbers import require
from ..registry import MASK_IOU_HEAD_REGISTRY
from .conv_head import conv_relu_stack, halved_channels, large_non_local

__all__ = ["MaskIoUHead", "NonLocalMaskIoUHead"]

_OF_CLASSES = {"predictor.weight": 0, "predictor.bias": 0}  # engine/class_weights.py


def _linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _with_mask(features, masks):
    """Features (R, C, h, w) and mask probabilities (R, 1, S, S), pooled to the features' size: (R, C + 1, h, w)."""
    return torch.cat([features, F.max_pool2d(masks, masks.shape[-1] // features.shape[-1])], dim=1)


def _convs(owner, input_shape, conv_dim, num_conv):
    """3x3 convolutions with ReLU, the last with stride 2, of features with their mask; and the sides of the result."""
    require(owner, "num_conv", num_conv, at_least=1, integer=True)
    require(owner, "conv_dim", conv_dim, at_least=1, integer=True)
    convs = []
    for i in range(num_conv):
        channels, stride = (conv_dim if i else input_shape.channels + 1), (1 if i < num_conv - 1 else 2)
        convs.append(Conv2d(channels, conv_dim, 3, stride=stride, padding=1, activation=nn.ReLU()))
        weight_init.c2_msra_fill(convs[-1])
    return nn.Sequential(*convs), (-(-input_shape.height // 2), -(-input_shape.width // 2))


@MASK_IOU_HEAD_REGISTRY.register()
class MaskIoUHead(nn.Module):
    """Mask Scoring R-CNN's head: 3x3 convolutions, the last with stride 2, then fully connected layers.

    Args:
        input_shape: ``ShapeSpec`` of the pooled mask features.
        num_classes: K; one IoU is predicted for each.
        conv_dim, num_conv: the convolutions.
        fc_dims: sizes of the hidden layers.
        loss_weight: factor of the mean squared error.

    Raises ``ValueError`` for settings out of range.
    """

    class_dims = _OF_CLASSES

    def __init__(
        self, *, input_shape, num_classes, conv_dim=256, num_conv=4, fc_dims=(1024, 1024), loss_weight=0.5
    ):
        super().__init__()
        require(self, "loss_weight", loss_weight, at_least=0)
        self.convs, (height, width) = _convs(self, input_shape, conv_dim, num_conv)
        hidden = [require(self, "fc_dims", size, at_least=1, integer=True) for size in fc_dims]
        sizes = [conv_dim * height * width, *hidden]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        for fc in self.fcs:
            weight_init.c2_xavier_fill(fc)
        self.predictor = _linear(sizes[-1], num_classes)
        self.loss_weight = float(loss_weight)

    def forward(self, features, masks):
        """Mask IoUs (R, K) of pooled features (R, C, h, w) and probabilities (R, 1, S, S) of the RoI's class."""
        x = self.convs(_with_mask(features, masks)).flatten(1)
        for fc in self.fcs:
            x = fc(x).relu()
        return self.predictor(x)


@MASK_IOU_HEAD_REGISTRY.register()
class NonLocalMaskIoUHead(nn.Module):
    """R3-CNN's head (sec. 4.3, "advanced"): large convolutions between non-local blocks in place of the hidden layers.

    Args:
        input_shape, num_classes, num_conv, loss_weight: as for :class:`MaskIoUHead`.
        conv_dim: channels of the first convolutions; ``None``: the input's.
        large_dims: channels of the large ones; ``None``: half and a quarter of ``conv_dim``.
        kernel_size: of the large convolutions, also of those in the non-local blocks.
        reduction: of the blocks' channels.

    Raises ``ValueError`` for settings out of range.
    """

    class_dims = _OF_CLASSES

    def __init__(
        self,
        *,
        input_shape,
        num_classes,
        conv_dim: Optional[int] = None,
        num_conv=4,
        large_dims: Optional[Sequence[int]] = None,
        kernel_size=7,
        reduction=2,
        loss_weight=0.5,
    ):
        super().__init__()
        require(self, "loss_weight", loss_weight, at_least=0)
        conv_dim = input_shape.channels if conv_dim is None else conv_dim
        dims = halved_channels(conv_dim, large_dims, type(self).__name__, "large_dims")
        self.convs, (height, width) = _convs(self, input_shape, conv_dim, num_conv)
        self.before = large_non_local(conv_dim, reduction, kernel_size)
        self.large = conv_relu_stack(conv_dim, dims, kernel_size)
        self.after = large_non_local(dims[-1], reduction, kernel_size)
        self.predictor = _linear(dims[-1] * height * width, num_classes)
        self.loss_weight = float(loss_weight)

    def forward(self, features, masks):
        """See :meth:`MaskIoUHead.forward`."""
        x = self.convs(_with_mask(features, masks))
        return self.predictor(self.after(self.large(self.before(x))).flatten(1))
