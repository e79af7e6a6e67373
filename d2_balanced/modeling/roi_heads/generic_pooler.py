"""GRoIE: pooled features of a RoI from all levels of the pyramid, not from the one that its size picks.

Rossi et al., A novel Region of Interest Extraction Layer for Instance Segmentation, ICPR 2020; R3-CNN table 4.
Shape shorthand: N: images; R: RoIs of all images; C: channels; h, w: size of the pooled features.
"""

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from torch import nn

from ..backbone.non_local import NonLocalBlock
from ..registry import POOLER_REGISTRY
from .position_attention import PositionAttention

__all__ = ["GenericROIPooler"]

_AFTER = {
    "position": lambda channels, size: PositionAttention(channels, size),
    "non_local": lambda channels, size: NonLocalBlock(channels, reduction=2, scaled=True),
    "none": lambda channels, size: nn.Identity(),
}


@POOLER_REGISTRY.register()
class GenericROIPooler(ROIPooler):
    """Pools every RoI from every level, each through the same convolution with ReLU; their sum goes through attention.

    Args:
        channels: C, of the feature maps and of the result.
        output_size, scales, sampling_ratio, pooler_type: as of ``ROIPooler``.
        kernel_size: odd; of the convolution before the sum.
        attention: after the sum, "position" (the release's, see :class:`~.position_attention.PositionAttention`),
            "non_local" or "none". Both blocks start as the identity.

    Raises ``ValueError`` for a setting out of range.
    """

    def __init__(
        self, *, channels, output_size, scales, sampling_ratio, pooler_type, kernel_size=5, attention="position"
    ):
        super().__init__(output_size, scales, sampling_ratio, pooler_type)
        if kernel_size < 1 or kernel_size % 2 != 1:
            raise ValueError(f"GenericROIPooler: kernel_size must be odd and positive, got {kernel_size}")
        if attention not in _AFTER:
            raise ValueError(f"GenericROIPooler: attention must be one of {', '.join(_AFTER)}, got {attention!r}")
        self.before = Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, activation=nn.ReLU())
        weight_init.c2_msra_fill(self.before)
        self.after = _AFTER[attention](channels, self.output_size)

    def forward(self, x, box_lists):
        """Feature maps, a list of (N, C, H, W), and N ``Boxes`` -> (R, C, h, w); (0, C, h, w) without boxes."""
        if not box_lists:
            return x[0].new_zeros(0, x[0].shape[1], *self.output_size)
        rois = convert_boxes_to_pooler_format(box_lists)
        return self.after(sum(self.before(pooler(level, rois)) for pooler, level in zip(self.level_poolers, x)))
