"""The region proposal network alone, as in detectron2's model zoo."""

from detectron2.config import LazyCall as L
from detectron2.modeling.meta_arch import ProposalNetwork

from .faster_rcnn import model as faster_rcnn
from .faster_rcnn import training

training.best_metric = "box_proposals/AR@1000"

model = L(ProposalNetwork)(
    backbone=faster_rcnn.backbone,
    proposal_generator=faster_rcnn.proposal_generator,
    pixel_mean=None,
    pixel_std=None,
)
model.proposal_generator.post_nms_topk = (1000, 2000)
