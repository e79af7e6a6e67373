"""The box heads of Peers on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from omegaconf import ListConfig

from d2_balanced.modeling.roi_heads import DoubleHead
from d2_balanced.modeling.task_features import TaskShapes


def double_head(model, conv_dim=256, num_convs=5):
    """Double-Head: fully connected layers for the classes, residual bottlenecks for the boxes."""
    heads = model.roi_heads
    if isinstance(heads.box_head, ListConfig):  # a cascade
        heads.box_head = [_double(head, conv_dim, num_convs) for head in heads.box_head]
    else:
        heads.box_head = _double(heads.box_head, conv_dim, num_convs)
    for predictor in heads.box_predictor if isinstance(heads.box_predictor, ListConfig) else [heads.box_predictor]:
        of_boxes = L(ShapeSpec)(channels=4 * conv_dim)
        predictor.input_shape = L(TaskShapes)(cls=predictor.input_shape, box=of_boxes)
        predictor.cls_loss.loss_weight = 2.0
        predictor.loss_weight = {"loss_box_reg": 2.5}


def _double(head, conv_dim, num_convs):
    shapes = {"input_shape": head.input_shape, "fc_dims": head.fc_dims}
    return L(DoubleHead)(**shapes, conv_dim=conv_dim, num_convs=num_convs, conv_norm="BN")
