"""Mask IoU heads (Mask Scoring R-CNN; R3-CNN sec. 4.3): how well the predicted mask fits, from the mask's RoI features.

Shape shorthand: R: RoIs; F: foreground RoIs; C: channels; h, w: size of the pooled features; S: side of a mask, 2h;
K: foreground classes.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from ..backbone.non_local import NonLocalBlock
from ..registry import MASK_IOU_HEAD_REGISTRY
from .conv_head import conv_relu_stack, halved_channels

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
        if num_conv < 1 or conv_dim < 1:
            raise ValueError(f"MaskIoUHead: num_conv and conv_dim must be at least 1, got {num_conv} and {conv_dim}")
        _check_loss_weight(self, loss_weight)
        strides = [1] * (num_conv - 1) + [2]
        channels = [input_shape.channels + 1] + [conv_dim] * num_conv
        self.convs = nn.ModuleList(
            Conv2d(channels[i], conv_dim, 3, stride=strides[i], padding=1) for i in range(num_conv)
        )
        sizes = [conv_dim * -(-input_shape.height // 2) * -(-input_shape.width // 2), *fc_dims]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        for conv in self.convs:
            weight_init.c2_msra_fill(conv)
        for fc in self.fcs:
            weight_init.c2_xavier_fill(fc)
        self.predictor = _linear(sizes[-1], num_classes)
        self.loss_weight = float(loss_weight)

    def forward(self, features, masks):
        """Mask IoUs (R, K) of pooled features (R, C, h, w) and probabilities (R, 1, S, S) of the RoI's class."""
        x = _with_mask(features, masks)
        for conv in self.convs:
            x = conv(x).relu()
        x = x.flatten(1)
        for fc in self.fcs:
            x = fc(x).relu()
        return self.predictor(x)


@MASK_IOU_HEAD_REGISTRY.register()
class NonLocalMaskIoUHead(nn.Module):
    """R3-CNN's head (sec. 4.3, "advanced"): large convolutions between non-local blocks, and no hidden layer.

    Args:
        input_shape, num_classes, loss_weight: as for :class:`MaskIoUHead`.
        conv_dims: channels of the convolutions; ``None``: half and a quarter of the input's.
        kernel_size: of the convolutions and of the embeddings in the non-local blocks.
        reduction: of the blocks' channels.
        blocks_before: non-local blocks before the convolutions (one comes after). The paper does not say how many;
            two give its number of parameters to 0.01 %.

    Raises ``ValueError`` for settings out of range.
    """

    def __init__(
        self,
        *,
        input_shape,
        num_classes,
        conv_dims=None,
        kernel_size=7,
        reduction=2,
        blocks_before=2,
        loss_weight=0.5,
    ):
        super().__init__()
        if blocks_before < 0:
            raise ValueError(f"NonLocalMaskIoUHead: blocks_before must be at least 0, got {blocks_before}")
        _check_loss_weight(self, loss_weight)
        channels = input_shape.channels
        dims = halved_channels(channels, conv_dims, type(self).__name__)
        block = {"reduction": reduction, "scaled": True, "kernel_size": kernel_size}
        self.before = nn.Sequential(*(NonLocalBlock(channels, **block) for _ in range(blocks_before)))
        self.convs = conv_relu_stack(channels + 1, dims, kernel_size)
        self.after = NonLocalBlock(dims[-1], **block)
        self.predictor = _linear(dims[-1] * input_shape.height * input_shape.width, num_classes)
        self.loss_weight = float(loss_weight)

    def forward(self, features, masks):
        """See :meth:`MaskIoUHead.forward`."""
        x = self.convs(_with_mask(self.before(features), masks))
        return self.predictor(self.after(x).flatten(1))
