"""What weighs the samples of a minibatch, or chooses them, by what a step predicts for them (seat 5).

Shape shorthand: R: RoIs of a branch's minibatch, those of all images; F: its foreground; K: foreground classes.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..returned import check_shape, check_type
from ..stage_view import StageView

__all__ = ["Drawn", "RoILosses", "RoIWeights", "SampleWeights"]

_SEAT = "sample weights, MODEL.BALANCED.SAMPLE_WEIGHTS"

Drawn = List[Tuple[Tensor, Tensor]]
"""Indices of the positives and of the negatives that are drawn of every image."""


class RoIWeights(NamedTuple):
    """Factors of every RoI's losses; None: 1, those of detectron2."""

    cls: Optional[Tensor] = None
    """(R,), of the classification losses."""
    box: Optional[Tensor] = None
    """(R,), of the box losses. The background's, which has none, mean nothing."""


class RoILosses(NamedTuple):
    """The losses of a branch's minibatch before they are weighed and summed; with gradients in the training pass."""

    predictor: nn.Module
    """The ``BalancedFastRCNNOutputLayers`` that predicts."""
    predictions: Tuple[Tensor, Tensor]
    """What it predicts: class logits (R, K+1), background last, and deltas (R, 4) or (R, 4K)."""
    samples: List[Instances]
    """The minibatch of every image."""
    labels: Tensor
    """(R,) in [0, K]; K is the background."""
    cls: Tensor
    """(R,), the classification losses."""
    foreground: Tensor
    """(F,) int64, the rows that are no background."""
    box_elements: Tensor
    """(F, 4) or (F,), their box losses, as the component gives them."""

    @property
    def positive(self) -> Tensor:
        """(R,) bool: no background."""
        return self.labels < self.predictor.num_classes

    @property
    def box(self) -> Tensor:
        """(R,): the box losses; 0 for the background, and where an IoU branch regresses the boxes instead."""
        losses = self.box_elements if self.box_elements.dim() == 1 else self.box_elements.sum(dim=1)
        return losses.new_zeros(len(self.labels)).index_add(0, self.foreground, losses)

    @property
    def loss_weights(self) -> Tuple[float, float]:
        """detectron2's factors of the classification and of the box losses, which the losses here are without."""
        return tuple(self.predictor.loss_weight.get(name, 1.0) for name in ("loss_cls", "loss_box_reg"))

    def scores(self) -> Tensor:
        """(R, K+1): the scores that the detector would give, background last."""
        return torch.cat(list(self.predictor.predict_probs(self.predictions, self.samples)))

    def predicted_boxes(self, classes: Tensor) -> Tensor:
        """(R, 4): the boxes predicted for these classes (R,), XYXY pixels, without gradient."""
        return self.predictor.boxes_of_classes(self.predictions[1], classes, self.samples)

    def ious(self, of: str) -> Tensor:
        """(R,): IoU of each RoI with its object, 0 for background, without gradient; of the box that is "predicted" for
        the object's class, or of the "proposal"."""
        return self.predictor.ious(self.predictions[1], self.labels, self.samples, of)


class SampleWeights(nn.Module):
    """Weighs the samples of every branch and stage, or chooses them; a subclass overrides :meth:`weigh`,
    :meth:`choose`, or both. This one does neither, and is what stands in detectors where nothing is set.
    """

    #: All labeled proposals are the minibatch, or what :meth:`choose` chooses from: the samplers draw nothing.
    takes_all_proposals = False
    #: With all proposals, whether :meth:`choose` keeps to the branch's share of positives.
    keeps_fraction = False
    #: Whether the box losses or the predicted boxes are read or weighed, which an IoU branch replaces; None: they are
    #: taken to be, if anything is weighed or chosen.
    reads_boxes: Optional[bool] = None
    # Where one of these does not go with the rest of the detector: what to do.
    to_sample = to_keep_fraction = without_boxes = "leave one of them out"

    @property
    def weighs(self) -> bool:
        """Whether :meth:`weigh` says anything."""
        return type(self).weigh is not SampleWeights.weigh

    @property
    def chooses(self) -> bool:
        """Whether :meth:`choose` says anything."""
        return type(self).choose is not SampleWeights.choose

    def prepare(self, predictor: nn.Module) -> None:
        """Called once with every predictor, before training: it may set how the predictor's layers start."""

    def weigh(self, view: StageView, losses: RoILosses) -> RoIWeights:
        """The factors of the losses of one branch. A call changes nothing: what learns has a method ``observe(view)``,
        which is called once a stage and branch.

        Called after the predictions, before the losses are summed. What the weights are computed from has to be
        detached, unless the weighed losses are meant to reach it.

        Args:
            view: the stage, of this branch alone (its lists have one entry).
            losses: the branch's losses.
        """
        return RoIWeights()

    def weights(self, view: StageView, losses: RoILosses) -> RoIWeights:
        """What :meth:`weigh` gives, which the losses are multiplied by; ``TypeError`` if it is of another shape than they."""
        found = check_type(self, _SEAT, self.weigh(view, losses), RoIWeights, "return RoIWeights(cls=..., box=...)")
        for name, weights in found._asdict().items():
            if weights is not None:
                check_shape(self, _SEAT, weights, losses.labels.shape, meaning=f"{name}, a factor of every RoI")
        return found

    def choose(self, view: StageView, losses: RoILosses, num_per_image: int, positive_fraction: float) -> Drawn:
        """Which samples the step trains on.

        Called without gradients, in the stages that draw a minibatch, before what is chosen is pooled and predicted
        with them. The arguments as for :meth:`weigh`; ``num_per_image``, ``positive_fraction``: the branch's own.

        Returns, for every image, rows of its samples: those of positives, and those of negatives.
        """
        raise NotImplementedError
