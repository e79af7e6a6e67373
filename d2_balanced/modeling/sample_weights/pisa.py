"""PISA: prime samples, by their rank among those of the same object, count more."""

from __future__ import annotations

from typing import Optional

import torch
from detectron2.structures import Boxes
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...utils.numbers import require
from ..arguments import check_range
from ..image_rows import first_rows, repeat, to_device
from ..matching import box_table, pairwise_iou
from ..registry import SAMPLE_WEIGHTS_REGISTRY
from .ranks import hierarchical_local_rank, unsuppressed
from .seat import RoIWeights, SampleWeights
from .weighing import power_above, with_sum_kept

__all__ = ["PISA"]

IOUS = ("predicted", "proposal")


@SAMPLE_WEIGHTS_REGISTRY.register()
class PISA(SampleWeights):
    """Prime sample attention (Cao et al., Prime Sample Attention in Object Detection, CVPR 2020).

    ISR (importance-based sample reweighting): a RoI of rank r among the n of its class has the importance
    ``u = (n - r) / n`` and the weight ``w = ((1 - beta) u + beta) ^ gamma`` of its classification loss; positives and
    negatives are scaled apart, so that their losses keep their sums. Ranks are hierarchical local ranks: of positives
    by the IoU of the predicted box, among those of one object (ISR-P); of negatives by the highest score of a class,
    among those that NMS takes for one cluster (ISR-N).

    CARL (classification-aware regression loss): a third loss, the box losses of the positives times
    ``c_i = v_i / mean(v)``, ``v_i = ((1 - b) p_i + b) ^ k``, p_i the score of the object's class. It is the one weight
    here that has a gradient: a badly regressed RoI lowers the score of its class. The factor of a positive's box loss
    is ``1 + carl_weight c_i``.

    Args:
        positive_gamma, negative_gamma: exponents of ISR-P and ISR-N, at least 0; 0: all weights are 1.
        positive_beta, negative_beta: in [0, 1], the importance that every RoI has.
        nms_thresh: IoU above which negatives are of one cluster, in (0, 1].
        carl_weight: factor of CARL, at least 0; 0: none.
        carl_k, carl_b: exponent, at least 0, and bias, in [0, 1], of CARL.
        ious: "predicted": ranks go by the boxes that the head predicts; "proposal": by the RoIs themselves, for a head
            whose boxes an IoU branch regresses.

    Raises:
        ValueError: for a value out of range.
    """

    without_boxes = "set ious to 'proposal' and carl_weight to 0"

    def __init__(
        self,
        positive_gamma: float = 2.0,
        positive_beta: float = 0.0,
        negative_gamma: float = 0.5,
        negative_beta: float = 0.0,
        nms_thresh: float = 0.5,
        carl_weight: float = 1.0,
        carl_k: float = 1.0,
        carl_b: float = 0.2,
        ious: str = "predicted",
    ):
        super().__init__()
        self.positive_gamma = require(self, "positive_gamma", positive_gamma, at_least=0)
        self.positive_beta = require(self, "positive_beta", positive_beta, at_least=0, at_most=1)
        self.negative_gamma = require(self, "negative_gamma", negative_gamma, at_least=0)
        self.negative_beta = require(self, "negative_beta", negative_beta, at_least=0, at_most=1)
        self.nms_thresh = require(self, "nms_thresh", nms_thresh, above=0, at_most=1)
        self.carl_weight = require(self, "carl_weight", carl_weight, at_least=0)
        self.carl_k = require(self, "carl_k", carl_k, at_least=0)
        self.carl_b = require(self, "carl_b", carl_b, at_least=0, at_most=1)
        check_range(self, "ious", ious, f"one of {list(IOUS)}", ious in IOUS)
        self.ious = ious

    @property
    def reads_boxes(self) -> bool:
        return self.ious == "predicted" or self.carl_weight > 0

    def weigh(self, view, losses):
        return RoIWeights(self._cls_weights(view, losses), self._box_weights(losses))

    @torch.no_grad()
    def _cls_weights(self, view, losses) -> Tensor:
        """ISR: (R,)."""
        positive = losses.positive
        importance = self._importance(view, losses)
        of_positives = power_above(importance, self.positive_beta, self.positive_gamma)
        of_negatives = power_above(importance, self.negative_beta, self.negative_gamma)
        negatives = with_sum_kept(of_negatives, losses.cls, ~positive)
        return with_sum_kept(of_positives, losses.cls, positive, others=negatives)

    def _importance(self, view, losses) -> Tensor:
        """u (R,). The background is a class like the others."""
        scores = losses.scores()[:, :-1].float()
        best, classes = scores.max(dim=1)
        values = torch.where(losses.positive, losses.ious(self.ious).float(), best)
        groups = self._groups(view, losses, best, classes)
        ranks = hierarchical_local_rank(values, groups, losses.labels)
        number = scores.new_zeros(losses.predictor.num_classes + 1)
        number.index_add_(0, losses.labels, torch.ones_like(values))
        return 1 - ranks / number[losses.labels]

    def _groups(self, view, losses, best: Tensor, classes: Tensor) -> Tensor:
        """(R,): for a positive the number of its object in the batch; for a negative, after them, the row of the RoI
        that suppresses it, or its own."""
        samples, positive = view.samples[0], losses.positive
        sizes, objects = [len(image) for image in samples], [len(targets) for targets in view.targets]
        object_of = torch.cat([image.matched_idxs for image in samples])
        object_of = object_of + repeat(to_device(first_rows(objects), object_of), sizes)
        if self.ious == "predicted":
            boxes = losses.predicted_boxes(classes)
        else:
            boxes = torch.cat([image.proposal_boxes.tensor for image in samples])
        clusters = self._clusters(boxes.float(), best.masked_fill(positive, -1.0), positive, sizes)
        return torch.where(positive, object_of, sum(objects) + clusters)

    def _clusters(self, boxes: Tensor, scores: Tensor, positive: Tensor, sizes) -> Tensor:
        """(R,): the row of the first RoI in NMS that each overlaps and that NMS keeps; positives take no part."""
        numbers = torch.arange(len(boxes), device=boxes.device)
        if len(boxes) == 0:
            return numbers
        image = repeat(torch.arange(len(sizes), device=boxes.device), sizes)
        kept = unsuppressed(boxes, scores, 2 * image + positive, self.nms_thresh) & ~positive
        rows = pad_sequence(numbers.split(sizes), batch_first=True)  # (B, n): an image's rows, then zeros
        scores = pad_sequence(scores.masked_fill(~kept, -1.0).split(sizes), batch_first=True, padding_value=-1.0)
        table = box_table([Boxes(each) for each in boxes.split(sizes)])
        near = pairwise_iou(table, table) > self.nms_thresh  # (B, n, n)
        first = torch.where(near, scores[:, :, None], scores.new_full((), -1.0)).max(dim=1)
        suppressor = torch.where((scores >= 0) | (first.values < 0), rows, rows.gather(1, first.indices))
        return torch.cat([each[:size] for each, size in zip(suppressor, sizes)])

    def _box_weights(self, losses) -> Optional[Tensor]:
        """One and CARL's factor: (R,), with a gradient into the scores."""
        if self.carl_weight == 0:
            return None
        positive = losses.positive
        p = losses.scores().gather(1, losses.labels[:, None])[:, 0]
        v = torch.where(positive, power_above(p, self.carl_b, self.carl_k), p.new_zeros(()))
        mean = v.sum() / positive.sum().clamp(min=1)
        return 1 + self.carl_weight * v / mean.clamp(min=torch.finfo(v.dtype).tiny)
