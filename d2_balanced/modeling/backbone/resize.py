"""Resizing feature maps to a given size, as the balanced feature pyramid does (Libra R-CNN, section 3.2).

    x: (N, C, H, W)     size: (H', W'), of any parity; in tracing it may consist of traced numbers
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["enlarge", "shrink", "shrink_by_gathering"]


def enlarge(x: Tensor, size) -> Tensor:
    """``x`` in the larger ``size`` by nearest interpolation: output pixel i is input pixel ``floor(i * H / H')``."""
    return F.interpolate(x, size=size, mode="nearest")


def shrink(x: Tensor, size, max_ratio: int) -> Tensor:
    """``x`` in the smaller ``size`` by adaptive max pooling, whose windows overlap where H is no multiple of H'.

    Args:
        max_ratio: a whole number that neither H / H' nor W / W' exceeds (the ratio of the levels' strides).
    """
    if torch.onnx.is_in_onnx_export():  # ONNX has no adaptive pooling to a size that is only known when it runs
        return shrink_by_gathering(x, size, max_ratio)
    return F.adaptive_max_pool2d(x, size)


def shrink_by_gathering(x: Tensor, size, max_ratio: int) -> Tensor:
    """The values of :func:`shrink` by plain indexing, one axis after the other."""
    for axis, length in zip((-2, -1), size):
        windows = _windows(x.shape[axis], length, max_ratio, x.device)
        x = functools.reduce(torch.maximum, [x.index_select(axis, pixels) for pixels in windows.unbind(1)])
    return x


def _windows(length, num_windows, max_ratio: int, device) -> Tensor:
    """Pixels of each window of adaptive pooling, ``[floor(i * H / H'), ceil((i + 1) * H / H'))``: (H', max_ratio + 1).

    A window never has more than ``max_ratio + 1`` pixels; a shorter one repeats its last.
    """
    window = torch.arange(num_windows, device=device)[:, None]
    start = torch.div(window * length, num_windows, rounding_mode="floor")
    end = torch.div((window + 1) * length + num_windows - 1, num_windows, rounding_mode="floor")
    return torch.minimum(start + torch.arange(max_ratio + 1, device=device), end - 1)
