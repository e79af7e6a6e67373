"""Libra R-CNN's components on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.backbone import BalancedFPN
from d2_balanced.modeling.box_losses import BalancedL1, SmoothL1
from d2_balanced.modeling.proposal_generator import BalancedRPN
from d2_balanced.modeling.sampling import IoUBalancedSampler, RandomSampler


def libra(model):
    """All of Libra R-CNN on a two-stage detector."""
    iou_balanced_sampling(model)
    balanced_pyramid(model)
    balanced_l1(model)


def iou_balanced_sampling(model):
    """Section 3.1: negatives spread over IoU, positives over the objects."""
    model.roi_heads.proposal_sampler = L(IoUBalancedSampler)(num_bins=3, positives="instance_balanced")


def balanced_pyramid(model, refine_level=2):
    """Section 3.2: every level gets the refined average of all levels, gathered at P4 (level 1 of RetinaNet's)."""
    model.backbone.update(_target_=BalancedFPN, refine_level=refine_level, refinement="non_local")


def balanced_pyramid_retinanet(model):
    """The balanced pyramid on RetinaNet's P3..P7."""
    balanced_pyramid(model, refine_level=1)


def balanced_l1(model):
    """Section 3.3, in the box head; each stage of a cascade has its own."""
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, ListConfig) else [predictors]:
        predictor.box_loss = L(BalancedL1)(alpha=0.5, gamma=1.5, beta=1.0)


def balanced_l1_retinanet(model):
    """Balanced L1 in RetinaNet, by the formula of the authors' code, with which the paper's figure was measured."""
    model.box_loss = L(BalancedL1)(alpha=0.5, gamma=1.5, beta=0.11, form="released")


def bounded_rpn_negatives(model):
    """The RPN of the authors' released configs: at most five negatives for each positive."""
    rpn = model.proposal_generator
    rpn.update(_target_=BalancedRPN, sampler=L(RandomSampler)(neg_pos_ub=5.0), box_loss=L(SmoothL1)(beta=0.0))


def balanced_rpn(model):
    """Libra RPN: IoU-balanced negatives, at most five for each positive, and balanced L1 with RetinaNet's beta."""
    model.proposal_generator.update(
        _target_=BalancedRPN,
        sampler=L(IoUBalancedSampler)(num_bins=3, neg_pos_ub=5.0),
        box_loss=L(BalancedL1)(alpha=0.5, gamma=1.5, beta=0.11, form="scaled"),
    )
