"""Mask R-CNN, as in detectron2's model zoo."""

from .faster_rcnn import model, training  # noqa: F401
from .mask_head import mask

model.roi_heads.update(mask)
