"""Slow scalar reference of deformable convolution (Dai et al. 2017, eq. 2 to 4; modulated: Zhu et al. 2019, eq. 1)."""

import math
from itertools import product

import torch


def bilinear(image, y, x):
    """The value of ``image`` (H, W) at a fractional position; outside the image it is 0."""
    height, width = image.shape
    total = 0.0
    for row, column in product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= row < height and 0 <= column < width:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(image[row, column])
    return total


def deform_conv(images, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups):
    """(N, C, H, W) -> (N, C', H', W'), one sample after the other; ``mask`` None: all ones."""
    num, channels = images.shape[:2]
    out_channels, per_group, size = weight.shape[0], weight.shape[1], weight.shape[2]
    out = torch.zeros(num, out_channels, *offset.shape[2:], dtype=torch.float64)
    for n, o, i, j in product(range(num), range(out_channels), *map(range, offset.shape[2:])):
        total = 0.0 if bias is None else float(bias[o])
        for c, k in product(range(per_group), range(size * size)):
            channel = o // (out_channels // groups) * per_group + c
            tap = channel // (channels // deformable_groups) * size * size + k
            y = i * stride - padding + k // size * dilation + float(offset[n, 2 * tap, i, j])
            x = j * stride - padding + k % size * dilation + float(offset[n, 2 * tap + 1, i, j])
            value = bilinear(images[n, channel], y, x) * float(weight[o, c, k // size, k % size])
            total += value if mask is None else value * float(mask[n, tap, i, j])
        out[n, o, i, j] = total
    return out
