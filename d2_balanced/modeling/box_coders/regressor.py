"""The layer that predicts the values of a box coder, from one feature or from one for each of the coder's places.

    R: RoIs      P: places      K: classes that have boxes of their own, or 1
"""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...utils.errors import Refusal

__all__ = ["LinearOfPlaces", "regressor_of"]


class LinearOfPlaces(nn.Linear):
    """One linear layer at every place of (R, P C) features, C of each: (R, K P V), class by class and place by place, V
    values at each.

    Args:
        channels: C.
        num_places: P.
        num_values: V.
        num_classes: K.
    """

    def __init__(self, channels: int, num_places: int, num_values: int, num_classes: int):
        super().__init__(channels, num_classes * num_values)
        self.num_places, self.num_classes = num_places, num_classes

    def forward(self, x: Tensor) -> Tensor:
        values = super().forward(x.unflatten(1, (self.num_places, -1)))  # (R, P, K V)
        return values.unflatten(2, (self.num_classes, -1)).transpose(1, 2).flatten(1)


def regressor_of(shape: ShapeSpec, coder, num_values: int, coder_name: str) -> nn.Linear:
    """A regressor with detectron2's initial values.

    Args:
        shape: of its input; with height and width, a feature for each of the coder's places.
        coder: see ``seat.py``.
        num_values: of all boxes that are predicted for a RoI together.
        coder_name: the coder and its key.

    Raises ``Refusal`` if the coder has other places.
    """
    if shape.height is None:
        layer = nn.Linear(shape.channels, num_values)
    else:
        places, num_places = (shape.height, shape.width), shape.height * shape.width
        if places != getattr(coder, "places", None):
            reason = f"the head gives the box regressor a feature for each of {places[0]} x {places[1]} places"
            remedy = "take a box coder with as many (Buckets: 4 x NUM_BUCKETS / 2), or another head"
            raise Refusal("the box head (MODEL.ROI_BOX_HEAD.NAME)", coder_name, reason, remedy)
        of_box = len(coder.weights)
        layer = LinearOfPlaces(shape.channels, num_places, of_box // num_places, num_values // of_box)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer
