"""The seats of the detector where imbalance is treated; importing this package registers every component."""

from . import backbone, box_losses, dynamic, matcher, meta_arch, proposal_generator, roi_heads, sampling  # noqa: F401
