"""Cascade R-CNN: three stages with a head each, as in detectron2's model zoo."""

from copy import deepcopy

from detectron2.config import LazyCall as L

from d2_balanced.modeling.roi_heads.stages import CascadeStages

from .faster_rcnn import model, training  # noqa: F401

model.proposal_generator.post_nms_topk = (2000, 1000)

heads = model.roi_heads
heads.stages = L(CascadeStages)(ious=[0.5, 0.6, 0.7])
heads.box_predictor.cls_agnostic_bbox_reg = True
heads.box_predictor.num_classes = "${...num_classes}"  # from inside a list it is one level further up
heads.box_head = [deepcopy(heads.box_head) for _ in range(3)]
heads.box_predictor = [deepcopy(heads.box_predictor) for _ in range(3)]
heads.box_predictor[1].box2box_transform.weights = (20.0, 20.0, 10.0, 10.0)
heads.box_predictor[2].box2box_transform.weights = (30.0, 30.0, 15.0, 15.0)
