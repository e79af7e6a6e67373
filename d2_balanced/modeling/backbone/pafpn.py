"""Path aggregation: a second, bottom-up path over FPN's levels (PANet, Liu et al., 2018, section 3.1)."""

from __future__ import annotations

from typing import Dict

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PAFPN"]


class PAFPN(FPN):
    """FPN whose levels P are aggregated from fine to coarse: ``N_2 = P_2``, ``N_{i+1} = conv(down(N_i) + P_{i+1})``.

    ``down`` is a 3x3 convolution of stride 2, ``conv`` one of stride 1; both are followed by ReLU. The output keeps the
    names p2, p3, .. and extra levels (``top_block``) that FPN makes from a level are made from the aggregated one.
    FPN's own state-dict keys are unchanged; the path's are ``pafpn_down{i}`` and ``pafpn_output{i}``, i = 3, 4, ..

    Args:
        bottom_up, in_features, out_channels: as in ``FPN``, which takes ``fpn_args`` too (norm, top_block, fuse_type).
    """

    def __init__(self, bottom_up, in_features, out_channels, norm="", **fpn_args):
        super().__init__(bottom_up, in_features, out_channels, norm=norm, **fpn_args)
        self._path_levels = self._out_features[: len(self.in_features)]
        for name in self._path_levels[1:]:
            self.add_module(f"pafpn_down{name[1:]}", _conv(out_channels, norm, stride=2))
            self.add_module(f"pafpn_output{name[1:]}", _conv(out_channels, norm, stride=1))

    def forward(self, x) -> Dict[str, Tensor]:
        """Image batch (N, 3, H, W) -> ``{"p2": (N, C, H/4, W/4), ..}``, fine to coarse."""
        features = super().forward(x)
        for finer, name in zip(self._path_levels, self._path_levels[1:]):
            down = getattr(self, f"pafpn_down{name[1:]}")(features[finer])
            features[name] = getattr(self, f"pafpn_output{name[1:]}")(down + features[name])
        if self.top_block is not None and self.top_block.in_feature in self._path_levels:
            # FPN made these from P; the second time they are made from N.
            extra_levels = self.top_block(features[self.top_block.in_feature])
            features.update(zip(self._out_features[len(self._path_levels) :], extra_levels))
        return features


def _conv(channels: int, norm: str, stride: int) -> nn.Module:
    conv = Conv2d(
        channels,
        channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=norm == "",
        norm=get_norm(norm, channels),
        activation=F.relu,
    )
    weight_init.c2_msra_fill(conv)
    return conv
