"""The box heads of Peers on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from omegaconf import ListConfig

from d2_balanced.modeling.box_coders import Buckets
from d2_balanced.modeling.box_losses import BucketLoss
from d2_balanced.modeling.roi_heads import DoubleHead, SideAwareHead
from d2_balanced.modeling.task_features import TaskShapes

from .losses import _predictors


def double_head(model, conv_dim=256, num_convs=5):
    """Double-Head: fully connected layers for the classes, residual bottlenecks for the boxes."""
    _each_head(model, lambda head: _double(head, conv_dim, num_convs))
    for predictor in _predictors(model):
        of_boxes = L(ShapeSpec)(channels=4 * conv_dim)
        predictor.input_shape = L(TaskShapes)(cls=predictor.input_shape, box=of_boxes)
        predictor.cls_loss.loss_weight = 2.0
        predictor.loss_weight = {"loss_box_reg": 2.5}


def buckets(model, num_buckets=14):
    """Buckets of each side instead of deltas, with any box head; scores times how sure the buckets are."""
    for stage, predictor in enumerate(_predictors(model)):
        predictor.box2box_transform = L(Buckets)(num_buckets=num_buckets, stage=stage)
        predictor.box_loss = L(BucketLoss)()


def sabl(model, conv_dim=256, num_convs=2, num_buckets=14):
    """SABL: buckets of each side, and a box head with features for each bucket."""
    buckets(model, num_buckets)
    _each_head(model, lambda head: _side_aware(head, conv_dim, num_convs))
    for predictor in _predictors(model):
        of_boxes = L(ShapeSpec)(channels=conv_dim, height=4, width=num_buckets // 2)
        predictor.input_shape = L(TaskShapes)(cls=predictor.input_shape, box=of_boxes)
        predictor.cls_agnostic_bbox_reg = True


def _each_head(model, make):
    """Every box head, of a cascade each stage's, replaced by what is made of it."""
    heads = model.roi_heads
    if isinstance(heads.box_head, ListConfig):
        heads.box_head = [make(head) for head in heads.box_head]
    else:
        heads.box_head = make(heads.box_head)


def _double(head, conv_dim, num_convs):
    shapes = {"input_shape": head.input_shape, "fc_dims": head.fc_dims}
    return L(DoubleHead)(**shapes, conv_dim=conv_dim, num_convs=num_convs, conv_norm="BN")


def _side_aware(head, conv_dim, num_convs):
    fc_dims = head.fc_dims[:1]  # as many channels as the last has
    return L(SideAwareHead)(input_shape=head.input_shape, fc_dims=fc_dims, conv_dim=conv_dim, num_convs=num_convs)
