"""Global context block (GC-Net, Cao et al., 2019): one attention-pooled vector of the image, added to every position.

    x: (N, C, H, W) features     C': bottleneck channels, C * ratio     P: positions, H * W
"""

from __future__ import annotations

from typing import Sequence

from detectron2.layers import Conv2d
from detectron2.modeling.backbone import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ContextBlock", "add_context_blocks"]


class ContextBlock(nn.Module):
    """``x + transform(sum over positions of softmax(attend(x)) x)``, a bottleneck with LayerNorm and ReLU.

    Args:
        channels: channels C of the input and of the output.
        ratio: bottleneck channels over C, in (0, 1]; 1/4 in the R3-CNN paper's table 4.

    The last convolution starts at zero, so that the block starts as the identity.

    Raises:
        ValueError: for a ratio out of range.
    """

    def __init__(self, channels: int, ratio: float = 0.25):
        super().__init__()
        if not 0 < ratio <= 1 or int(channels * ratio) < 1:
            raise ValueError(f"ContextBlock: ratio must be in (0, 1] and leave a channel of {channels}, got {ratio}")
        inner = int(channels * ratio)
        self.attend = Conv2d(channels, 1, 1)
        self.squeeze = Conv2d(channels, inner, 1)
        self.norm = nn.LayerNorm([inner, 1, 1])
        self.expand = Conv2d(inner, channels, 1)
        for conv, nonlinearity in ((self.attend, "linear"), (self.squeeze, "relu")):
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity=nonlinearity)
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        attention = self.attend(x).flatten(2).softmax(dim=-1)  # (N, 1, P)
        context = x.flatten(2) @ attention.transpose(1, 2)  # (N, C, 1)
        return x + self.expand(F.relu(self.norm(self.squeeze(context.unsqueeze(-1)))))


def add_context_blocks(resnet: ResNet, stages: Sequence[str] = ("res3", "res4", "res5"), ratio: float = 0.25) -> ResNet:
    """The same ResNet with a :class:`ContextBlock` in every residual block of ``stages``, before the residual addition.

    The ResNet's own state-dict keys are unchanged; the blocks' are ``res3.0.conv3.activation.*`` and so on.

    Raises:
        ValueError: for a stage that the ResNet does not have.
    """
    for stage in stages:
        if stage not in resnet.stage_names:
            raise ValueError(f"add_context_blocks: stages must be among {', '.join(resnet.stage_names)}, got {stage!r}")
        for block in getattr(resnet, stage):
            # detectron2's convolutions apply norm, then activation; the last one of a block has no activation.
            last_conv = getattr(block, "conv3", None) or block.conv2
            last_conv.activation = ContextBlock(block.out_channels, ratio)
    return resnet
