"""The seats of the detector where imbalance is treated; importing this package registers every component."""

from . import (  # noqa: F401
    backbone,
    box_coders,
    box_losses,
    cls_losses,
    extra_proposals,
    matcher,
    meta_arch,
    proposal_generator,
    roi_heads,
    sample_weights,
    sampling,
    suppression,
)
