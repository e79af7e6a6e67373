"""What a box predictor predicts: detectron2's pair of class logits and deltas, and what is beside it."""

from __future__ import annotations

from typing import Optional, Tuple

from torch import Tensor

__all__ = ["BoxPredictions", "log_variances_of", "rows_of", "with_logits"]


class BoxPredictions(tuple):
    """(logits (R, K+1), deltas (R, 4) or (R, 4K)), as from detectron2's predictors, with ``log_variances`` of the deltas'
    shape: what takes detectron2's pair takes it, too."""

    log_variances: Tensor

    def __new__(cls, logits: Tensor, deltas: Tensor, log_variances: Tensor):
        predictions = super().__new__(cls, (logits, deltas))
        predictions.log_variances = log_variances
        return predictions


def log_variances_of(predictions: Tuple[Tensor, Tensor]) -> Optional[Tensor]:
    """The log variances of the predicted coordinates, of the deltas' shape; None where nobody predicts them."""
    return getattr(predictions, "log_variances", None)


def with_logits(predictions: Tuple[Tensor, Tensor], logits: Tensor) -> Tuple[Tensor, Tensor]:
    """The predictions with other logits."""
    log_variances = log_variances_of(predictions)
    return (logits, predictions[1]) if log_variances is None else BoxPredictions(logits, predictions[1], log_variances)


def rows_of(predictions: Tuple[Tensor, Tensor], rows: Tensor) -> Tuple[Tensor, Tensor]:
    """The predictions of some RoIs, ``rows`` being indices or a mask."""
    log_variances = log_variances_of(predictions)
    pair = tuple(each[rows] for each in predictions)
    return pair if log_variances is None else BoxPredictions(*pair, log_variances[rows])
