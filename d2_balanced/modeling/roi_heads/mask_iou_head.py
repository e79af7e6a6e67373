"""Mask IoU heads (Mask Scoring R-CNN; R3-CNN sec. 4.3): how well the predicted mask fits, from the mask's RoI features.

Shape shorthand: R: RoIs; F: foreground RoIs; C: channels; h, w: size of the pooled features; S: side of a mask, 2h;
K: foreground classes.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from ..registry import MASK_IOU_HEAD_REGISTRY
from .conv_head import conv_relu_stack, halved_channels, large_non_local

__all__ = ["MaskIoUHead", "NonLocalMaskIoUHead"]


def _check_loss_weight(head, loss_weight):
    if not loss_weight >= 0:
        raise ValueError(f"{type(head).__name__}: loss_weight must be >= 0, got {loss_weight!r}")


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
    if num_conv < 1 or conv_dim < 1:
        name = type(owner).__name__
        raise ValueError(f"{name}: num_conv and conv_dim must be at least 1, got {num_conv} and {conv_dim}")
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

    def __init__(
        self, *, input_shape, num_classes, conv_dim=256, num_conv=4, fc_dims=(1024, 1024), loss_weight=0.5
    ):
        super().__init__()
        _check_loss_weight(self, loss_weight)
        self.convs, (height, width) = _convs(self, input_shape, conv_dim, num_conv)
        sizes = [conv_dim * height * width, *fc_dims]
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

    def __init__(
        self,
        *,
        input_shape,
        num_classes,
        conv_dim=None,
        num_conv=4,
        large_dims=None,
        kernel_size=7,
        reduction=2,
        loss_weight=0.5,
    ):
        super().__init__()
        _check_loss_weight(self, loss_weight)
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
