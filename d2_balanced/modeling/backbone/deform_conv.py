"""Deformable convolutions on every device: torchvision's operator where detectron2's own cannot run.

The kernels of detectron2's ``DeformConv`` (Dai et al. 2017, eq. 2) and ``ModulatedDeformConv`` (Zhu et al. 2019,
eq. 1) are for CUDA: a detectron2 that was built for the CPU, or as pure Python, cannot train with them. Both modules
look their operator up in ``detectron2.layers.deform_conv`` when they are called. Importing this module puts functions
there that keep the compiled kernel for CUDA tensors, where it was built, and take torchvision's for all others. It
computes the same sum over the same layout of weights and offsets, so checkpoints go both ways.
"""

from __future__ import annotations

from detectron2.layers import deform_conv as detectron2_ops
from torchvision.ops import deform_conv2d

from d2_balanced import compat

__all__ = ["deform_conv", "modulated_deform_conv"]

_compiled_deform_conv = detectron2_ops.deform_conv
_compiled_modulated_deform_conv = detectron2_ops.modulated_deform_conv


def deform_conv(x, offset, weight, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1, im2col_step=64):
    """Version 1: ``x`` (N, C, H, W), ``offset`` (N, 2 * deformable_groups * kh * kw, H', W') in pixels, y before x,
    ``weight`` (C', C / groups, kh, kw) -> (N, C', H', W')."""
    if _has_kernel_for(x):
        settings = (stride, padding, dilation, groups, deformable_groups, im2col_step)
        return _compiled_deform_conv(x, offset, weight, *settings)
    return _lent(x, offset, None, weight, None, stride, padding, dilation)


def modulated_deform_conv(
    x, offset, mask, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1
):
    """Version 2: as :func:`deform_conv`, each sample weighed by ``mask`` (N, deformable_groups * kh * kw, H', W')."""
    if _has_kernel_for(x):
        settings = (stride, padding, dilation, groups, deformable_groups)
        return _compiled_modulated_deform_conv(x, offset, mask, weight, bias, *settings)
    return _lent(x, offset, mask, weight, bias, stride, padding, dilation)


def _has_kernel_for(x):
    return x.is_cuda and compat.has_cuda_ops()


def _lent(x, offset, mask, weight, bias, stride, padding, dilation):
    """torchvision's operator; it reads both numbers of groups from the shapes. Mixed precision: in the weight's type."""
    x, offset = x.to(weight.dtype), offset.to(weight.dtype)
    mask = None if mask is None else mask.to(weight.dtype)
    return deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)


detectron2_ops.deform_conv = deform_conv
detectron2_ops.modulated_deform_conv = modulated_deform_conv
