"""Box features that are others for the classification than for the boxes: the head, and what it says that it gives."""

from __future__ import annotations

from typing import NamedTuple

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from torch import nn

from ..utils.errors import Refusal
from ..utils.numbers import require

__all__ = ["TaskHead", "TaskShapes"]


class TaskShapes(NamedTuple):
    """``output_shape`` of a box head that gives a pair of features, as :class:`~.roi_heads.DoubleHead` does, and the
    ``input_shape`` of a predictor that takes it."""

    cls: ShapeSpec
    """Of what the classifier reads."""
    box: ShapeSpec
    """Of what the box regressor reads; with height and width, (R, height, width, channels): a feature for each place of
    a box coder (``box_coders/seat.py``)."""

    @property
    def channels(self):
        """Read by whoever knows of one feature for both: a ``Refusal``."""
        raise Refusal(
            "a box head with a feature for each task (MODEL.ROI_BOX_HEAD.NAME: DoubleHead, SideAwareHead)",
            "a part that takes one feature for both",
            "it would not know which to take",
            "take BalancedROIHeads with BalancedFastRCNNOutputLayers, and no IoU branch",
        )


class TaskHead(nn.Module):
    """A box head with fully connected layers for the classifier, ``fc_head``, and convolutions of its own for boxes.

    Args:
        input_shape: ``ShapeSpec`` of the pooled features.
        fc_dims: of the fully connected layers, one or more.
        num_convs: of the boxes' convolutions, 1 or more.

    Raises:
        ValueError: for a value out of range.
    """

    needs_heads = "BalancedROIHeads"  # whose predictor takes both features: config/refusals.py

    def __init__(self, input_shape, fc_dims, num_convs):
        super().__init__()
        require(self, "num_convs (MODEL.ROI_BOX_HEAD.NUM_CONV)", num_convs, at_least=1, integer=True)
        require(self, "the number of fc_dims (MODEL.ROI_BOX_HEAD.NUM_FC)", len(fc_dims), at_least=1)
        self.fc_head = FastRCNNConvFCHead(input_shape, conv_dims=[], fc_dims=list(fc_dims))

    @classmethod
    def from_config(cls, cfg, input_shape):
        node = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "fc_dims": [node.FC_DIM] * node.NUM_FC,
            "conv_dim": node.CONV_DIM,
            "num_convs": node.NUM_CONV,
            "conv_norm": node.NORM,
        }
