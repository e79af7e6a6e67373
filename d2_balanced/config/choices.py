"""What a word in a config may be where detectron2 looks at it only in the first iteration: data, for both config systems."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ..data.image_file import IMAGE_FORMATS
from ..modeling.fast_layers import PRECISIONS
from ..modeling.proposal_generator.rpn import NORMALIZERS
from ..utils.errors import ConfigError, shown

__all__ = ["ARGUMENTS", "YACS", "check_choices"]

_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
_MASK_FORMATS = ("polygon", "bitmask")

YACS = {
    **{f"MODEL.{part}.BBOX_REG_LOSS_TYPE": _BOX_LOSSES for part in ("ROI_BOX_HEAD", "RPN", "RETINANET")},
    "MODEL.BALANCED.RPN.NORMALIZER": ("", *NORMALIZERS),
    "MODEL.LAYERS.PRECISION": PRECISIONS,
    "INPUT.FORMAT": IMAGE_FORMATS,
    "INPUT.MASK_FORMAT": _MASK_FORMATS,
}
"""By yacs key."""

ARGUMENTS = {"box_reg_loss_type": _BOX_LOSSES, "image_format": IMAGE_FORMATS, "instance_mask_format": _MASK_FORMATS}
"""By the name of an argument of detectron2's, or this package's own, in the nodes of a LazyConfig."""


def check_choices(values: Mapping[str, Any], choices: Mapping[str, Sequence[str]], where: str = "") -> None:
    """Raise ``ConfigError`` for the first value that is none of its key's choices; keys without any are passed over."""
    for key, value in values.items():
        if key in choices and value not in choices[key]:
            allowed = ", ".join(filter(None, choices[key]))
            raise ConfigError(f"{key}{where}: must be one of {allowed}, got {shown(value)}.")
