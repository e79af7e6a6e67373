"""Classification losses: ``loss(logits (R, K+1), labels (R,)) -> (R,)``, unreduced (seat 5), and cross entropy.

    R: RoIs (or anchors)      K: foreground classes; label K is the background, the last column

Predictors take the mean over the RoIs, dense detectors the sum over the anchors, as detectron2 does.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...utils.numbers import require
from ..arguments import check_range
from ..registry import CLS_LOSS_REGISTRY

__all__ = ["ClassificationLoss", "CrossEntropy", "class_targets"]

FORMS = ("softmax", "sigmoid")


def class_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (R, C) and labels (R,): 1 in the column of the label, 0 elsewhere; a row of zeros for label C."""
    columns = torch.arange(logits.shape[1], device=logits.device)
    return (labels[:, None] == columns).to(logits.dtype)


class ClassificationLoss(nn.Module):
    """What the losses of this package have in common.

    A subclass writes :meth:`softmax_losses`, :meth:`sigmoid_losses`, or both. A loss that changes in training writes
    ``accumulate``, which gets what :meth:`forward` gets, once a training forward pass, and ``end_iteration``; forward
    itself changes nothing, so that whoever wants to know a loss may call it.

    Args:
        form: "softmax" over the K+1 columns, or "sigmoid": a binary classifier for each class, where the last column is
            not used and RPN and RetinaNet have none. None: the first one that the class has.
        prior: with sigmoids in ROI heads, the score of every class before training (Lin et al. 2017, sec. 3.3), by the
            classifier's bias; None: 0.01. At 0.5 the bias is 0, as in detectron2.
        loss_weight: factor; at least 0.

    Raises:
        ValueError: for a value out of range, or a form that the class does not have.
    """

    forms = FORMS
    #: The IoU of each RoI with its object that the loss is given as ``ious=`` (R,), 0 for background: "predicted", of
    #: the box that the head predicts for the object's class, or "proposal". Empty: none.
    wants_ious = ""

    def __init__(self, form: Optional[str] = None, prior: Optional[float] = None, loss_weight: float = 1.0):
        super().__init__()
        form = self.forms[0] if form is None else form
        check_range(self, "form", form, f"one of {list(self.forms)}", form in self.forms)
        if prior is not None:
            require(self, "prior", prior, above=0, below=1)
        check_range(self, "prior", prior, "None with a softmax", prior is None or form == "sigmoid")
        require(self, "loss_weight", loss_weight, at_least=0)
        self.form = form
        self.prior = prior
        self.loss_weight = loss_weight

    @property
    def reads_background(self) -> bool:
        """Whether the logits' last column means something; dense detectors, which have none, refuse such a loss."""
        return self.form == "softmax"

    @property
    def initial_bias(self) -> Optional[float]:
        """What the ROI heads' classifier starts with as its bias; None: 0, as in detectron2."""
        prior = 0.01 if self.prior is None else self.prior
        return None if self.form == "softmax" else math.log(prior / (1 - prior))

    def forward(self, logits: Tensor, labels: Tensor, **ious: Tensor) -> Tensor:
        """Losses (R,) of logits (R, K+1) and labels (R,) in [0, K]; of empty input empty, connected to the graph."""
        return self.loss_weight * self.of_form(logits, labels, **ious)

    def of_form(self, logits: Tensor, labels: Tensor, **ious: Tensor) -> Tensor:
        """:meth:`forward` without the factor."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.form == "softmax":
            return self.softmax_losses(logits, labels, **ious)
        return self.sigmoid_losses(logits[:, :-1], labels, **ious).sum(dim=1)

    def softmax_losses(self, logits: Tensor, labels: Tensor, **ious: Tensor) -> Tensor:
        """Losses (R,) of logits (R, K+1)."""
        raise NotImplementedError

    def sigmoid_losses(self, logits: Tensor, labels: Tensor, **ious: Tensor) -> Tensor:
        """Losses (R, K) of the classes' logits (R, K); label K is the background, for which all targets are 0."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Scores (R, K+1) in [0, 1] of logits (R, K+1) at inference, the background last.

        With sigmoids, where nobody predicts the background, it is 1 minus the highest score.
        """
        if self.form == "softmax":
            return logits.softmax(dim=-1)
        scores = logits.sigmoid()[:, :-1]
        return torch.cat([scores, 1 - scores.amax(dim=1, keepdim=True)], dim=1)

    def extra_repr(self):
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if _is_setting(name, value))


def _is_setting(name: str, value) -> bool:
    return not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str, type(None)))


@CLS_LOSS_REGISTRY.register()
class CrossEntropy(ClassificationLoss):
    """detectron2's classification loss (the default): cross entropy of the softmax; with ``form="sigmoid"`` the sum of
    the classes' binary cross entropies, which is ``use_sigmoid_ce`` of detectron2's main and the RPN's loss.

    For the arguments see :class:`ClassificationLoss`.
    """

    def softmax_losses(self, logits, labels):
        return F.cross_entropy(logits, labels, reduction="none")

    def sigmoid_losses(self, logits, labels):
        return F.binary_cross_entropy_with_logits(logits, class_targets(logits, labels), reduction="none")
