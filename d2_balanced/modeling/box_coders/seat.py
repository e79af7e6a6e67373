"""What a box coder is: ``box2box_transform`` of detectron2's predictors, which makes boxes of what they predict.

detectron2's ``Box2BoxTransform`` is one: four deltas are a box. Every box coder has its interface:

- ``weights``: as many numbers as values are predicted for a box, D;
- ``get_deltas(boxes (N, 4), gt_boxes (N, 4)) -> (N, 4)``: what a box loss has as its target;
- ``apply_deltas(values (N, D C), boxes (N, 4)) -> (N, 4C)``: the boxes that the values mean, in XYXY pixels.

What the ROI heads do with boxes (stages, IoUs, suppression, masks) goes by these, and by the boxes. A coder may have:

- ``sights``: what a box loss that is to train all values can see (``box_losses/seat.py``); without it:
  ``SIGHTS_OF_DELTAS``;
- ``confidences(values (N, D C)) -> (N, C)`` or None: how sure the values are, in (0, 1], by which scores are multiplied
  at inference, after the threshold;
- ``places``: (rows, columns) of equal parts that the values consist of, one after the other; a box head may then give
  the regressor a feature for each (``task_features.py``).

    N: boxes      D: values of a box      C: boxes predicted for each, 1 or the number of classes
"""

from __future__ import annotations

from typing import Callable, Optional, Union

from torch import Tensor

from ...utils.errors import Refusal

__all__ = ["SIGHTS_OF_DELTAS", "check_sees", "confidences"]

SIGHTS_OF_DELTAS = ("deltas", "boxes", "corners")
"""What a box loss can see of a ``Box2BoxTransform``."""


def check_sees(loss: Union[Callable, str], coder, coder_name: str) -> None:
    """Raises ``Refusal`` for a box loss that does not train the values of a box coder.

    Args:
        loss: as in ``box_losses/seat.py``, or a ``box_reg_loss_type`` of detectron2's, which sees deltas or boxes.
        coder: None: detectron2's.
        coder_name: the coder and its key, or whose it is.
    """
    sights = getattr(coder, "sights", SIGHTS_OF_DELTAS)
    sees = getattr(loss, "sees", "deltas")
    if sees not in sights or (getattr(loss, "wants_log_variances", False) and "deltas" not in sights):
        name, seen = f"box_loss={type(loss).__name__}" + " (MODEL.BALANCED.BOX_LOSS)" * (coder is not None), sees
        if isinstance(loss, str):
            name, seen = f"box_reg_loss_type={loss!r} (MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE)", "deltas or boxes"
        reason = f"the loss sees {seen}, and what is predicted is trained by {' or '.join(sights)}"
        raise Refusal(name, coder_name, reason, "take a loss that sees these" + " (BucketLoss)" * ("buckets" in sights))


def confidences(coder, values: Tensor) -> Optional[Tensor]:
    """How sure predicted values (N, D C) are, (N, C); None where the coder does not tell."""
    tell: Optional[Callable[[Tensor], Optional[Tensor]]] = getattr(coder, "confidences", None)
    return None if tell is None else tell(values)
