"""Fast R-CNN on precomputed proposals (``dataloader.{train,test}.dataset.proposal_files``)."""

from .faster_rcnn import model, training  # noqa: F401

model.proposal_generator = None
