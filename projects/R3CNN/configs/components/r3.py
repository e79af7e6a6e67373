"""R3-CNN's components on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.backbone.context_block import add_context_blocks
from d2_balanced.modeling.roi_heads import (
    FlowMaskHead,
    GenericROIPooler,
    InterleavedMasks,
    MaskIoUHead,
    NonLocalConvHead,
    NonLocalMaskIoUHead,
    RecursiveStages,
)

from .....configs.base.models.mmdetection_cascade import mmdetection_cascade


def loops(model, ious=(0.5, 0.6, 0.7), loss_weights=(1.0, 0.75, 0.5)):
    """One box head in a loop; class-agnostic boxes."""
    heads = model.roi_heads
    heads.stages = L(RecursiveStages)(ious=list(ious), loss_weights=list(loss_weights), resample=True)
    heads.box_predictor.cls_agnostic_bbox_reg = True


def loop_masks(model):
    """One mask head in the loop; goes after ``loops``."""
    heads = model.roi_heads
    heads.mask_branch = L(InterleavedMasks)()
    heads.mask_head.update(_target_=FlowMaskHead, takes_previous=len(heads.stages.ious) > 1)


def htc(model):
    """Hybrid Task Cascade without the semantic branch, on a Cascade Mask R-CNN."""
    heads = model.roi_heads
    mmdetection_cascade(model)
    heads.mask_branch = L(InterleavedMasks)()
    heads.mask_head.update(_target_=FlowMaskHead, num_classes="${...num_classes}")  # one level up from inside a list
    heads.mask_head = [deepcopy(heads.mask_head) for _ in heads.stages.ious]
    for k, mask_head in enumerate(heads.mask_head):
        mask_head.takes_previous = k > 0


def large(model):
    """R3-CNN-L ("advanced")."""
    large_box_head(model)
    large_mask_iou_head(model)


def large_box_head(model):
    """A non-local block and 7x7 convolutions, which leave a quarter of the channels."""
    heads = model.roi_heads
    shape = heads.box_head.input_shape
    heads.box_head = L(NonLocalConvHead)(input_shape=shape)
    heads.box_predictor.input_shape.channels = shape.channels // 4 * shape.height * shape.width


def large_mask_iou_head(model):
    """7x7 convolutions between non-local blocks."""
    _mask_iou_head(model, NonLocalMaskIoUHead)


def mask_scoring(model):
    """Mask Scoring R-CNN's head, on any model with one mask head."""
    _mask_iou_head(model, MaskIoUHead)


def _mask_iou_head(model, head):
    heads = model.roi_heads
    shape = deepcopy(heads.mask_head.input_shape)
    heads.mask_iou_head = L(head)(input_shape=shape, num_classes="${..num_classes}")


def context_blocks(model):
    """GC-Net's blocks in res3 to res5, ratio 1/4."""
    resnet = model.backbone.bottom_up
    resnet.out_features = "${...in_features}"  # it is one level deeper now
    model.backbone.bottom_up = L(add_context_blocks)(resnet=resnet, stages=["res3", "res4", "res5"], ratio=0.25)


def full_scale(model):
    """What the released configs of HTC and R3-CNN set at the paper's scale."""
    rpn = model.proposal_generator
    rpn.post_nms_topk = (2000, 1000)
    rpn.smooth_l1_beta = rpn.box_loss.beta = 0.1111111111111111
    for predictor in _each(model.roi_heads.box_predictor):
        predictor.test_score_thresh = 0.001
        predictor.smooth_l1_beta = predictor.box_loss.beta = 1.0


def _each(node):
    return node if isinstance(node, ListConfig) else [node]


def groie(model):
    """Box and mask features from all levels of the pyramid, each of 2 x 2 points a cell."""
    heads = model.roi_heads
    channels = _each(heads.box_head)[0].input_shape.channels
    for pooler in (heads.box_pooler, heads.mask_pooler):
        pooler.update(_target_=GenericROIPooler, channels=channels, sampling_ratio=2)
