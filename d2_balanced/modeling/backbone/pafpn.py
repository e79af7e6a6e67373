"""Path aggregation: a second, bottom-up path over FPN's levels (PANet, Liu et al., 2018, section 3.1)."""

from __future__ import annotations

from typing import Dict

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PAFPN"]

_FORMS = ("panet", "released")


class PAFPN(FPN):
    """FPN whose levels P are aggregated from fine to coarse: ``N_2 = P_2``, ``N_{i+1} = conv(down(N_i) + P_{i+1})``.

    ``down`` is a 3x3 convolution of stride 2, ``conv`` one of stride 1; both are followed by ReLU. The output keeps the
    names p2, p3, .. and extra levels (``top_block``) that FPN makes from a level are made from the aggregated one.
    FPN's own state-dict keys are unchanged; the path's are ``pafpn_down{i}`` and ``pafpn_output{i}``, i = 3, 4, ..

    Libra R-CNN's release (table 5) passes the sums on before ``conv``, which P_2 gets, too, and has no ReLU:
    ``S_2 = P_2``, ``S_{i+1} = down(S_i) + P_{i+1}``, ``N_i = conv(S_i)``.

    Args:
        bottom_up, in_features, out_channels: as in ``FPN``, which takes ``fpn_args`` too (norm, top_block, fuse_type).
        form: "panet" or "released".

    Raises:
        ValueError: for another form.
    """

    def __init__(self, bottom_up, in_features, out_channels, norm="", form="panet", **fpn_args):
        super().__init__(bottom_up, in_features, out_channels, norm=norm, **fpn_args)
        if form not in _FORMS:
            raise ValueError(f"{type(self).__name__}: form must be one of {', '.join(_FORMS)}, got {form!r}")
        self.form = form
        self._path_levels = self._out_features[: len(self.in_features)]
        for name in self._path_levels[1:]:
            self.add_module(f"pafpn_down{name[1:]}", _conv(out_channels, norm, form, stride=2))
        for name in self._path_levels[0 if form == "released" else 1 :]:
            self.add_module(f"pafpn_output{name[1:]}", _conv(out_channels, norm, form, stride=1))

    def forward(self, x) -> Dict[str, Tensor]:
        """Image batch (N, 3, H, W) -> ``{"p2": (N, C, H/4, W/4), ..}``, fine to coarse."""
        features = super().forward(x)
        passed = features[self._path_levels[0]]
        if self.form == "released":
            features[self._path_levels[0]] = self._output(self._path_levels[0], passed)
        for name in self._path_levels[1:]:
            total = getattr(self, f"pafpn_down{name[1:]}")(passed) + features[name]
            features[name] = self._output(name, total)
            passed = total if self.form == "released" else features[name]
        if self.top_block is not None and self.top_block.in_feature in self._path_levels:
            # FPN made these from P; the second time they are made from N.
            extra_levels = self.top_block(features[self.top_block.in_feature])
            features.update(zip(self._out_features[len(self._path_levels) :], extra_levels))
        return features

    def _output(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, f"pafpn_output{name[1:]}")(x)


def _conv(channels: int, norm: str, form: str, stride: int) -> nn.Module:
    conv = Conv2d(
        channels,
        channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=norm == "",
        norm=get_norm(norm, channels),
        activation=None if form == "released" else F.relu,
    )
    fill = weight_init.c2_xavier_fill if form == "released" else weight_init.c2_msra_fill
    fill(conv)
    return conv
