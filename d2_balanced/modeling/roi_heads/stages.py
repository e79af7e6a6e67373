"""The stage axis: how often, with which thresholds and with whose weights the boxes of an image are refined."""

import copy
import math
from collections.abc import Sequence
from typing import Optional

from ...utils.numbers import require
from ..matcher import FixedMatcher
from ..registry import STAGES_REGISTRY
from ..scoring import STAGE_MERGES

__all__ = ["Stages", "SingleStage", "CascadeStages", "RecursiveStages"]

_MOST_LOOPS = 100


class Stages:
    """A topology along the stage axis: what every stage does, and what is passed from one to the next.

    Args:
        ious: IoU threshold of every training stage. The first stage is matched by the head's ``proposal_matcher``
            (its threshold is the head's own setting); the others by a ``FixedMatcher`` at their threshold.
        shared_head: one box head serves all stages (recursive) instead of one head a stage (cascade).
        loss_weights: factor of every stage's losses; ``None``: 1 for each.
        resample: draw a minibatch with the branch's sampler in the later stages too (the first always does);
            otherwise they train on all refined boxes of the previous stage's minibatch.
        keep_appended_gt: refine the ground-truth boxes that were appended to the proposals along with the others;
            otherwise they are dropped between stages.
        feature_grad_scale: factor of the gradient that flows from all of a stage's heads into the feature maps: the box
            heads of every branch, the IoU branch, and the mask heads that train in every stage.
        merge: how the stages' class scores are merged at inference, one of ``scoring.STAGE_MERGES``.
        num_test: stages at inference, at most 100 with a shared head, else at most as many as in training; ``None``:
            as many as in training.

    Raises ``ValueError`` for settings out of range, naming the argument and the value.
    """

    def __init__(
        self,
        *,
        ious,
        shared_head,
        loss_weights: Optional[Sequence[float]] = None,
        resample=False,
        keep_appended_gt=True,
        feature_grad_scale=1.0,
        merge="probability",
        num_test: Optional[int] = None,
    ):
        name = type(self).__name__
        self.ious = tuple(float(iou) for iou in ious)
        self.loss_weights = tuple(float(w) for w in (loss_weights or (1.0,) * len(self.ious)))
        self.num_train = len(self.ious)
        if not self.ious or not all(0.0 < iou < 1.0 for iou in self.ious):
            raise ValueError(f"{name}: ious must be one or more thresholds inside (0, 1), got {list(ious)}")
        if len(self.loss_weights) != self.num_train or not all(0 <= w < math.inf for w in self.loss_weights):
            raise ValueError(
                f"{name}: loss_weights must be {self.num_train} finite numbers >= 0, one for each of ious={list(self.ious)}, "
                f"got {list(self.loss_weights)}"
            )
        self.shared_head = shared_head
        self.resample = bool(resample)
        self.keep_appended_gt = bool(keep_appended_gt)
        self.feature_grad_scale = float(require(self, "feature_grad_scale", feature_grad_scale, at_least=0))
        self._set_inference(self.num_train if num_test is None else num_test, merge)

    def _set_inference(self, num_test, merge):
        name = type(self).__name__
        if merge not in STAGE_MERGES:
            raise ValueError(f"{name}: merge must be one of {sorted(STAGE_MERGES)}, got {merge!r}")
        most = _MOST_LOOPS if self.shared_head else self.num_train  # one head a stage
        self.num_test = require(self, "num_test", num_test, at_least=1, at_most=most, integer=True)
        self.merge = merge

    def draws(self, stage):
        """Whether a training stage draws a minibatch of its labeled proposals, instead of keeping them all."""
        return stage == 0 or self.resample

    def for_inference(self, num_test, merge):
        """These stages with another number of them at inference, or another merge; raises as the constructor does."""
        other = copy.copy(self)
        other._set_inference(num_test, merge)
        return other

    def matchers(self, first):
        """One matcher for every training stage; ``first`` is the head's own ``proposal_matcher``."""
        later = [FixedMatcher([iou], [0, 1], allow_low_quality_matches=False) for iou in self.ious[1:]]
        return [first] + later


@STAGES_REGISTRY.register()
class SingleStage(Stages):
    """One stage, as in Faster R-CNN: detectron2's ``StandardROIHeads``."""

    def __init__(self):
        super().__init__(ious=(0.5,), shared_head=False)


@STAGES_REGISTRY.register()
class CascadeStages(Stages):
    """A head for every stage, as in Cascade R-CNN: by default exactly detectron2's ``CascadeROIHeads``.

    Class probabilities are averaged over the stages. The gradient into the feature maps is divided by the number of stages,
    unless ``feature_grad_scale`` is given. mmdetection's cascade, with which IoU-Uniform R-CNN and RGA + PRM were run, is
    ``configs/base/models/mmdetection_cascade``. For the arguments see :class:`Stages`.
    """

    def __init__(
        self,
        *,
        ious=(0.5, 0.6, 0.7),
        loss_weights: Optional[Sequence[float]] = None,
        resample=False,
        keep_appended_gt=True,
        feature_grad_scale: Optional[float] = None,
        merge="probability",
        num_test: Optional[int] = None,
    ):
        one_each = 1.0 / max(len(ious), 1)
        super().__init__(
            ious=ious,
            shared_head=False,
            loss_weights=loss_weights,
            resample=resample,
            keep_appended_gt=keep_appended_gt,
            feature_grad_scale=one_each if feature_grad_scale is None else feature_grad_scale,
            merge=merge,
            num_test=num_test,
        )


@STAGES_REGISTRY.register()
class RecursiveStages(Stages):
    """One head used in a loop (R3-CNN, sec. 3): every loop matches and samples the boxes that the last one refined.

    Appended ground-truth boxes are dropped between loops and appended anew; class logits are averaged over the loops.
    ``num_test`` (the paper's L_e) is independent of the number of training loops ``len(ious)`` (L_t).
    For the arguments see :class:`Stages`.
    """

    def __init__(
        self,
        *,
        ious=(0.5, 0.6, 0.7),
        loss_weights: Optional[Sequence[float]] = None,
        resample=True,
        keep_appended_gt=False,
        feature_grad_scale=1.0,
        merge="logit",
        num_test: Optional[int] = None,
    ):
        super().__init__(
            ious=ious,
            shared_head=True,
            loss_weights=loss_weights,
            resample=resample,
            keep_appended_gt=keep_appended_gt,
            feature_grad_scale=feature_grad_scale,
            merge=merge,
            num_test=num_test,
        )
