"""Balanced feature pyramid: every level gets the average of all levels, refined once (Libra R-CNN, section 3.2).

    features: the pyramid's L maps (N, C, H_l, W_l), fine to coarse
    refine level: the map in whose size they are averaged
"""

from __future__ import annotations

from typing import Dict, List, Sequence

from detectron2.layers import Conv2d
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torch.nn import functional as F

from ...utils.numbers import require
from .non_local import NonLocalBlock
from .pafpn import PAFPN
from .resize import enlarge, shrink

__all__ = ["BalancedFeatures", "BalancedFPN", "BalancedPAFPN"]


def _no_refinement(channels: int) -> nn.Module:
    return nn.Identity()


def _conv(channels: int) -> nn.Module:
    conv = Conv2d(channels, channels, 3, padding=1, activation=F.relu)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _non_local(channels: int) -> nn.Module:
    # As released: Xavier-uniform on every convolution, so training does not start at the identity.
    return NonLocalBlock(channels, zero_init=False)


_REFINEMENTS = {"none": _no_refinement, "conv": _conv, "non_local": _non_local}


class BalancedFeatures(nn.Module):
    """Averages all levels in the size of one, refines the average, adds it to every level (equations 3 and 4).

    Finer levels are resized by adaptive max pooling, coarser ones by nearest interpolation, and back the other way.

    Args:
        channels: channels of each level; they must be equal.
        strides: stride of each level in pixels, increasing.
        refine_level: index of the level whose size the average has, 0 = finest.
        refinement: "none", "conv" (3x3, ReLU) or "non_local" (embedded Gaussian, no reduction, not scaled).

    Raises:
        ValueError: for a level that does not exist, an unknown refinement, unequal channels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], refine_level=2, refinement="non_local"):
        super().__init__()
        if len(set(channels)) != 1:
            raise ValueError(f"BalancedFeatures: channels of all levels must be equal, got {list(channels)}")
        require(self, "refine_level", refine_level, at_least=0, at_most=len(channels) - 1, integer=True)
        if refinement not in _REFINEMENTS:
            raise ValueError(
                f"BalancedFeatures: refinement must be one of {', '.join(_REFINEMENTS)}, got {refinement!r}"
            )
        self.refine_level = refine_level
        self.strides = tuple(strides)
        self.refine = _REFINEMENTS[refinement](channels[0])

    def forward(self, features: List[Tensor]) -> List[Tensor]:
        """L maps, fine to coarse -> L maps of the same sizes."""
        refined = self.refine(self.gather(features))
        return [x + self._resize(refined, self.refine_level, level, x) for level, x in enumerate(features)]

    def gather(self, features: List[Tensor]) -> Tensor:
        """Mean of all levels in the refine level's size (equation 3)."""
        like = features[self.refine_level]
        return sum(self._resize(x, level, self.refine_level, like) for level, x in enumerate(features)) / len(features)

    def _resize(self, x: Tensor, level: int, to_level: int, like: Tensor) -> Tensor:
        """``x`` of ``level`` in the size of ``like``, a map of ``to_level``."""
        if level < to_level:
            return shrink(x, like.shape[-2:], self.strides[to_level] // self.strides[level])
        return enlarge(x, like.shape[-2:]) if level > to_level else x


class BalancedFPN(FPN):
    """FPN with a balanced feature pyramid on all its levels, extra ones included (P2..P6, or P3..P7 for RetinaNet).

    FPN's own state-dict keys are unchanged, so a plain-FPN checkpoint loads; the refinement's are ``balance.refine.*``.

    Args:
        bottom_up, in_features, out_channels: as in ``FPN``, which takes ``fpn_args`` too (norm, top_block, fuse_type).
        refine_level: index of the level in whose size the levels are averaged, 0 = finest; the paper's is P4
            (2 for P2..P6, 1 for P3..P7).
        refinement: "none", "conv" or "non_local".

    Raises:
        ValueError: see :class:`BalancedFeatures`.
    """

    def __init__(self, bottom_up, in_features, out_channels, *, refine_level=2, refinement="non_local", **fpn_args):
        super().__init__(bottom_up, in_features, out_channels, **fpn_args)
        shapes = [self.output_shape()[name] for name in self._out_features]
        channels = [shape.channels for shape in shapes[: len(self.in_features)]] + _extra_channels(self, shapes)
        self.balance = BalancedFeatures(channels, [shape.stride for shape in shapes], refine_level, refinement)

    def forward(self, x) -> Dict[str, Tensor]:
        """Image batch (N, 3, H, W) -> ``{"p2": (N, C, H/4, W/4), ..}``, fine to coarse."""
        features = super().forward(x)
        return dict(zip(features, self.balance(list(features.values()))))


def _extra_channels(fpn: FPN, shapes) -> List[int]:
    """Channels of the levels that the top block adds; FPN itself reports its own ``out_channels`` for them."""
    reported = [shape.channels for shape in shapes[len(fpn.in_features) :]]
    convs = [m for m in fpn.top_block.modules() if isinstance(m, nn.Conv2d)] if fpn.top_block is not None else []
    return [convs[-1].out_channels] * len(reported) if convs else reported


class BalancedPAFPN(BalancedFPN, PAFPN):
    """Balanced feature pyramid on :class:`PAFPN` (Libra R-CNN, table 5); arguments as in :class:`BalancedFPN`."""
