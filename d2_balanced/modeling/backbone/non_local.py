"""Non-local block: every position gathers from every other one (Wang et al., 2018; used by Libra R-CNN and R3-CNN).

    x: (N, C, H, W) features     C': inner channels, C / reduction     P: positions, H * W
"""

from __future__ import annotations

import math

from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NonLocalBlock"]


def _embedded_gaussian(theta: Tensor, phi: Tensor, g: Tensor, scaled: bool) -> Tensor:
    """``softmax over the keys of (theta phi^T) g``, the logits divided by ``sqrt(C')`` if ``scaled``: (N, 1, P, C')."""
    # The fused kernel never holds the P x P matrix, and always divides by sqrt(C').
    undo = 1.0 if scaled else math.sqrt(theta.shape[-1])
    return F.scaled_dot_product_attention(theta * undo, phi, g)


def _dot_product(theta: Tensor, phi: Tensor, g: Tensor, scaled: bool) -> Tensor:
    """``(theta phi^T) g / P``, as ``theta (phi^T g) / P``: linear in P, in time and in memory."""
    return theta @ (phi.transpose(-2, -1) @ g) / phi.shape[-2]


_PAIRWISE = {"embedded_gaussian": _embedded_gaussian, "dot_product": _dot_product}


class NonLocalBlock(nn.Module):
    """``x + out(attention(theta(x), phi(x)) g(x))`` with convolutions theta, phi, g and out.

    Args:
        channels: channels C of the input and of the output.
        reduction: inner channels are ``C // reduction``.
        scaled: divide the attention logits by ``sqrt(C')`` (embedded Gaussian only). Libra R-CNN does not; R3-CNN does.
        kernel_size: odd kernel size of theta, phi and g. Libra R-CNN: 1; R3-CNN: 7.
        out_kernel_size: that of out, the same in both.
        pairwise: "embedded_gaussian" (softmax over the positions) or "dot_product" (divided by their number).
        zero_init: start ``out`` at zero, so that the block starts as the identity. Otherwise Xavier-uniform, like the
            other convolutions: what Libra R-CNN's release trains from.

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self,
        channels,
        reduction=1,
        scaled=False,
        kernel_size=1,
        pairwise="embedded_gaussian",
        zero_init=True,
        out_kernel_size=1,
    ):
        super().__init__()
        if reduction < 1 or channels % reduction:
            raise ValueError(f"NonLocalBlock: reduction must be a divisor of channels={channels}, got {reduction}")
        for name, size in (("kernel_size", kernel_size), ("out_kernel_size", out_kernel_size)):
            if size < 1 or size % 2 != 1:
                raise ValueError(f"NonLocalBlock: {name} must be odd and positive, got {size}")
        if pairwise not in _PAIRWISE:
            raise ValueError(f"NonLocalBlock: pairwise must be one of {', '.join(_PAIRWISE)}, got {pairwise!r}")
        if scaled and pairwise != "embedded_gaussian":
            raise ValueError(f"NonLocalBlock: scaled=True needs pairwise='embedded_gaussian', got {pairwise!r}")
        inner = channels // reduction
        self.theta, self.phi, self.g = (
            Conv2d(channels, inner, kernel_size, padding=kernel_size // 2) for _ in range(3)
        )
        self.out = Conv2d(inner, channels, out_kernel_size, padding=out_kernel_size // 2)
        self.scaled = scaled
        self.pairwise = pairwise
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)
        if zero_init:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        theta, phi, g = (_positions(conv(x)) for conv in (self.theta, self.phi, self.g))
        gathered = _PAIRWISE[self.pairwise](theta, phi, g, self.scaled)  # (N, 1, P, C')
        n, _, h, w = x.shape
        return x + self.out(gathered.squeeze(1).transpose(1, 2).reshape(n, self.out.in_channels, h, w))


def _positions(x: Tensor) -> Tensor:
    """(N, C', H, W) -> (N, 1, P, C'): one attention head whose tokens are the positions."""
    # Contiguous: the fused attention kernels refuse any other layout, and the fallback holds the P x P matrix.
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
