"""The keys that name a class or function in one of detectron2's registries, and what they may name."""

from __future__ import annotations

from detectron2 import modeling

import d2_balanced.modeling  # noqa: F401  (registers its own)

from ..modeling.spec import registered_names
from ..utils.errors import ConfigError, did_you_mean

__all__ = ["CHOOSERS", "SECTIONS", "is_a", "registered"]

SECTIONS = {
    "modeling/anchor_generator.py": "MODEL.ANCHOR_GENERATOR",
    "modeling/backbone/fpn.py": "MODEL.FPN",
    "modeling/backbone/resnet.py": "MODEL.RESNETS",
    "modeling/meta_arch/fcos.py": "MODEL.RETINANET",
    "modeling/meta_arch/retinanet.py": "MODEL.RETINANET",
    "modeling/proposal_generator/rpn.py": "MODEL.RPN",
    "modeling/roi_heads/box_head.py": "MODEL.ROI_BOX_HEAD",
    "modeling/roi_heads/cascade_rcnn.py": "MODEL.ROI_BOX_CASCADE_HEAD",
    "modeling/roi_heads/keypoint_head.py": "MODEL.ROI_KEYPOINT_HEAD",
    "modeling/roi_heads/mask_head.py": "MODEL.ROI_MASK_HEAD",
    "modeling/roi_heads/roi_heads.py": "MODEL.ROI_HEADS",
}
"""``{file of detectron2: the part of a yacs config that it reads}``, for errors that are raised there."""

CHOOSERS = {
    "MODEL.META_ARCHITECTURE": modeling.META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": modeling.BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": modeling.PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": modeling.RPN_HEAD_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": modeling.ANCHOR_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": modeling.ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": modeling.ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": modeling.ROI_MASK_HEAD_REGISTRY,
}
"""``{key: the registry of what it names}``."""

# Names of detectron2 for having nothing there.
_NOTHING = {"MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals", "MODEL.ROI_BOX_HEAD.NAME": ""}


def registered(chooser: str, name: str):
    """What ``name``, the value of the key ``chooser``, stands for; None for nothing. ``ConfigError`` if unknown."""
    registry = CHOOSERS[chooser]
    if name == _NOTHING.get(chooser):
        return None
    if name not in registry:
        suggestion = did_you_mean(name, registered_names(registry))
        raise ConfigError(f"{chooser}: nothing is registered as {name!r}.{suggestion}")
    return registry.get(name)


def is_a(name: str, reader: str, chooser: str) -> bool:
    """Whether ``name``, the value of the key ``chooser``, is the class ``reader`` or one derived from it."""
    bases = getattr(registered(chooser, name), "__mro__", ())
    return name == reader or any(base.__name__ == reader for base in bases)
