"""What a classification loss is called with, and its mean as detectron2 takes it.

A classification loss is called with logits (R, K+1) and labels (R,) and returns (R,). It may have attributes:

- ``wants_ious``: "predicted" or "proposal"; it is also called with ``ious=`` (R,), 0 for background;
- ``scores``: logits to scores (R, K+1) at inference; without it they are the softmax;
- ``initial_bias``: of the ROI heads' classifier, for the foreground classes;
- ``reads_background``: false for a loss that gives the last column no meaning: RPN and RetinaNet, which have no such
  column, take only these, and fill it with zeros;
- ``mean_of_examples``: true for a loss whose formula divides by the number of examples, the answers of all classes'
  classifiers: RetinaNet does so, instead of dividing by the number of positives;
- ``needs_classes``: true for a loss that means nothing with one class, as in an RPN;
- ``adopt``: called with the number of classes; ``accumulate``: called as the loss is, once a training pass.
"""

from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from ..returned import check_shape
from .base import CrossEntropy

__all__ = ["class_losses", "class_scores", "is_cross_entropy", "mean_loss"]


_UNREDUCED = "a loss of every RoI, without a sum or mean"


def class_losses(loss: Callable, logits: Tensor, labels: Tensor, ious: Optional[Tensor], learn: bool) -> Tensor:
    """The unreduced losses (R,) of a classification loss that is given what it asks for.

    Args:
        loss: see above.
        logits, labels: (R, K+1) and (R,).
        ious: (R,), for a loss that wants them.
        learn: this is the training pass, from which the loss may learn.
    """
    more = {"ious": ious} if getattr(loss, "wants_ious", "") else {}
    if learn and hasattr(loss, "accumulate"):
        with torch.no_grad():
            loss.accumulate(logits, labels, **more)
    losses = loss(logits, labels, **more)
    return check_shape(loss, "a classification loss, MODEL.BALANCED.CLS_LOSS", losses, labels.shape, meaning=_UNREDUCED)


def mean_loss(losses: Tensor) -> Tensor:
    """The mean of losses (R,), a graph-connected 0 of none, in the order of torch's cross entropy.

    So the mean of unreduced cross entropies is the cross entropy of the batch to the last bit; a plain mean is not.
    """
    if losses.numel() == 0:
        return losses.sum() * 0.0
    return F.nll_loss(-losses[:, None], torch.zeros_like(losses, dtype=torch.int64))


def class_scores(loss: Callable, logits: Tensor) -> Tensor:
    """Scores (R, K+1) at inference of the logits (R, K+1) that were trained with ``loss``."""
    return loss.scores(logits) if hasattr(loss, "scores") else F.softmax(logits, dim=-1)


def is_cross_entropy(loss: Optional[Callable]) -> bool:
    """Whether ``loss`` is the ROI heads' of detectron2 (or None, its own), so that nothing has to be replaced."""
    return loss is None or type(loss) is CrossEntropy and loss.form == "softmax" and loss.loss_weight == 1
