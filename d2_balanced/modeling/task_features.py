"""Box features that are others for the classification than for the boxes: what such a head says that it gives."""

from __future__ import annotations

from typing import NamedTuple

from detectron2.layers import ShapeSpec

from ..utils.errors import Refusal

__all__ = ["TaskShapes"]


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
