"""The suppressions of Peers on the nodes of a LazyConfig, each changed in place (the yaml files of this folder).

They act at inference only: a checkpoint that was trained without one is evaluated with it.
"""

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.suppression import (
    BoxVoting,
    IoUGuidedNMS,
    NMS,
    SoftNMS,
    VarianceVoting,
    WeightedBoxesFusion,
)

from ....IoUUniformRCNN.configs.components.iou_uniform import iou_uniform
from ....RGA_PRM.configs.components.rga_prm import prm
from .losses import kl_loss


def soft_nms(model):
    """Soft-NMS, Gaussian."""
    model.roi_heads.nms = L(SoftNMS)(method="gaussian", sigma=0.5)


def soft_nms_linear(model):
    """Soft-NMS, linear, with the paper's threshold."""
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, ListConfig) else [predictors]:
        predictor.test_nms_thresh = 0.3
    model.roi_heads.nms = L(SoftNMS)(method="linear")


def soft_nms_retinanet(model):
    """Soft-NMS, Gaussian, in RetinaNet."""
    model.nms = L(SoftNMS)(method="gaussian", sigma=0.5)


def box_voting(model):
    """Box voting with equal variances."""
    model.roi_heads.nms = L(BoxVoting)(vote_sigma=0.02)


def softer_nms(model):
    """KL loss, and variance voting with Soft-NMS ("Softer-NMS")."""
    kl_loss(model)
    model.roi_heads.nms = L(VarianceVoting)(method="gaussian", sigma=0.5, vote_sigma=0.02)


def iou_guided_nms(model):
    """IoU-guided NMS with the IoU branch of IoU-Uniform R-CNN."""
    iou_uniform(model)
    model.roi_heads.nms = L(IoUGuidedNMS)()


def weighted_boxes_fusion(model):
    """Weighted boxes fusion of a detector's own candidates. Needs ``pip install 'd2_balanced[fusion]'``."""
    model.roi_heads.nms = L(WeightedBoxesFusion)(iou_thresh=0.55, conf_type="max")


def joint_nms(model):
    """PRM's parallel modules with joint NMS, in place of the mean of their logits."""
    prm(model)
    model.roi_heads.nms = L(NMS)(joint=True)
