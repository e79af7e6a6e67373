"""ROIAlign on feature maps with their channels last, on the CPU: every pooled value is a weighted sum of a bag of pixels.

Shape shorthand: N: images; R: RoIs; C: channels; H, W: size of the feature map; h, w: of the pooled features; B: bins,
R h w; E: all pixels of all bins.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bag_roi_align"]


def bag_roi_align(
    x: Tensor, rois: Tensor, output_size: Tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """``torchvision.ops.roi_align`` with ``aligned=True``, equal but for rounding, as is the gradient.

    torchvision's copies such a map into the other layout and back, and works out every weight of the gradient again
    for each channel; here a pixel's channels are added as one row.

    Args:
        x: (N, C, H, W) in memory format channels_last, float32.
        rois: (R, 5), image index and x1, y1, x2, y2.
        output_size, spatial_scale, sampling_ratio: as for ``roi_align``; a ratio of 0 or less: one sample a pixel.

    Returns (R, C, h, w), also with the channels last in memory.
    """
    height, width = x.shape[2:]
    corners = rois[:, 1:].detach() * spatial_scale - 0.5
    (left, top), (right, bottom) = corners[:, :2].unbind(1), corners[:, 2:].unbind(1)
    rows = _axis(top, bottom - top, output_size[0], sampling_ratio, height)
    columns = _axis(left, right - left, output_size[1], sampling_ratio, width)
    pixels, weights, offsets = _bags(rows, columns, rois[:, 0].long() * height, width, output_size)
    table = x.permute(0, 2, 3, 1).flatten(0, 2)
    pooled = F.embedding_bag(pixels.int(), table, offsets.int(), mode="sum", per_sample_weights=weights)
    return pooled.view(len(rois), *output_size, x.shape[1]).permute(0, 3, 1, 2)


class _Axis(NamedTuple):
    """What the bins of all RoIs read along one axis: RoI after RoI, bin after bin."""

    pixels: Tensor
    """Indices of rows, or of columns."""
    weights: Tensor
    per_bin: Tensor
    """(R,) how many of them a bin of each RoI has."""
    first: Tensor
    """(R,) where those of its first bin begin."""


def _axis(start: Tensor, length: Tensor, bins: int, sampling_ratio: int, size: int) -> _Axis:
    """The samples of every bin, each between two pixels of an axis with ``size`` of them; none outside of it."""
    if sampling_ratio > 0:
        samples = torch.full_like(length, sampling_ratio, dtype=torch.int64)
    else:
        samples = (length / bins).ceil().clamp(min=0).long()
    roi = torch.arange(len(start)).repeat_interleave(samples * bins)
    first = (samples * bins).cumsum(0) - samples * bins
    number = torch.arange(len(roi)) - first[roi]  # of the sample, within its RoI
    of_bin, bin_length = samples[roi], (length / bins)[roi]
    at = start[roi] + number.div(of_bin, rounding_mode="floor") * bin_length + (number % of_bin + 0.5) * bin_length / of_bin
    inside = (at >= -1) & (at <= size)
    at = at.clamp(min=0, max=size - 1)
    low = at.long()
    beyond = at - low
    weights = torch.stack([1 - beyond, beyond], dim=1) * (inside / of_bin)[:, None]
    pixels = torch.stack([low, (low + 1).clamp(max=size - 1)], dim=1)
    return _Axis(pixels.flatten(), weights.flatten(), 2 * samples, 2 * first)


def _bags(rows: _Axis, columns: _Axis, first_row: Tensor, width: int, output_size) -> Tuple[Tensor, Tensor, Tensor]:
    """Pixels (E,), weights (E,) and where each of the B bags begins: those of its rows times those of its columns."""
    bins = torch.arange(output_size[0])[:, None], torch.arange(output_size[1])
    first = [(axis.first[:, None, None] + bin * axis.per_bin[:, None, None]) for axis, bin in zip((rows, columns), bins)]
    first = [each.expand(-1, *output_size).flatten() for each in first]
    per_bin = [each.repeat_interleave(output_size[0] * output_size[1]) for each in (rows.per_bin, columns.per_bin)]
    sizes = per_bin[0] * per_bin[1]
    bag, row = _runs(first[0], per_bin[0])  # of every row of every bag
    line, column = _runs(first[1][bag], per_bin[1][bag])  # of every pixel of these rows
    start = (first_row.repeat_interleave(output_size[0] * output_size[1])[bag] + rows.pixels[row]) * width
    pixels = start[line] + columns.pixels[column]
    return pixels, rows.weights[row][line] * columns.weights[column], sizes.cumsum(0) - sizes


def _runs(first: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor]:
    """Runs of consecutive numbers, one after the other: which run each is of, and the numbers."""
    run = torch.arange(len(lengths)).repeat_interleave(lengths)
    return run, torch.arange(len(run)) + (first - lengths.cumsum(0) + lengths)[run]
