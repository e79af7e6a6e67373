"""Counters and histograms of fixed size, on the device of what they count. ``FIELDS`` says what each one means.

Nothing here waits for the device: rows are chosen by weights of 0 and 1, never by an index of unknown length.
"""

from __future__ import annotations

from typing import Dict

import torch
from torch import Tensor

__all__ = [
    "BEST_ERROR",
    "BEST_IOU",
    "CLASS_FIELDS",
    "FIELDS",
    "IOU_BINS",
    "MAX_OBJECTS",
    "MAX_POSITIVES",
    "SCORE_BINS",
    "ImbalanceCounts",
]

IOU_BINS = 20  # of 0.05
SCORE_BINS = 20  # of 0.05
MAX_OBJECTS = 30  # the last entry of the fields by number of objects is "so many or more"
MAX_POSITIVES = 30  # and of those by number of positives
BEST_IOU, BEST_ERROR = 75, 10
"""Dynamic R-CNN's K_I and K_beta: which of an image's proposals, from the best one, tells how good they are."""

FIELDS: Dict[str, int] = {
    "images": 1,
    # The minibatch, appended ground truth included.
    "positives": 1,
    "negatives": 1,
    "appended_gt": 1,  # how many of the positives are appended ground truth
    "positives_correct": 1,  # the class with the highest score is the ground truth's
    "negatives_correct": 1,  # it is the background
    "positive_scores": SCORE_BINS,  # by foreground probability, 1 - P(background)
    "negative_scores": SCORE_BINS,
    "score_differences": SCORE_BINS,  # |foreground probability - that of the main branch| on the main branch's RoIs
    # By IoU with the best ground truth, appended ground truth left out.
    "proposal_ious": IOU_BINS,  # everything that could be sampled
    "positive_ious": IOU_BINS,
    "positive_iou_sum": IOU_BINS,
    "negative_ious": IOU_BINS,
    "refined_ious": IOU_BINS,  # the positives by their IoU after regression
    "refined_iou_sum": IOU_BINS,  # sum of the positives' IoUs after regression, by the IoU before
    "cls_loss": IOU_BINS,  # sum of the predictor's classification loss of the RoIs of the minibatch
    "box_loss": IOU_BINS,  # sum of the predictor's box loss of the positives
    "cls_gradient": IOU_BINS,  # sum of the norms of each RoI's gradient with respect to its logits
    "box_gradient": IOU_BINS,  # sum of the norms of each positive's gradient with respect to its deltas
    # By the IoU that an IoU branch predicts for the RoIs of the minibatch.
    "predicted_ious": IOU_BINS,
    "predicted_iou_sum": IOU_BINS,
    "predicted_iou_true_sum": IOU_BINS,  # sum of their IoUs with the best ground truth
    # Of the images with objects: sums of the IoU of the BEST_IOU-th best proposal, and of the error of the
    # BEST_ERROR-th best, in the predictor's units, as in Dynamic R-CNN's statistics (without deltas: those of detectron2's
    # deltas). The last one, where there are fewer.
    "best_iou_sum": 1,
    "best_error_sum": 1,
    # By IoU, of everything that could be sampled: sums of the regression targets, and of their squares, in units of the
    # proposals (Dynamic R-CNN, eq. 2).
    **{f"target_{name}{kind}": IOU_BINS for name in "xywh" for kind in ("", "_squares")},
    # By number of objects in the image, appended ground truth left out: how many proposals are positive.
    "images_by_objects": MAX_OBJECTS + 1,
    "positives_by_objects": MAX_OBJECTS + 1,
    "squared_positives_by_objects": MAX_OBJECTS + 1,
    # How many objects have so many positives, appended ground truth left out.
    "objects_by_positives": MAX_POSITIVES + 1,  # among all proposals
    "objects_by_samples": MAX_POSITIVES + 1,  # in the minibatch
}

CLASS_FIELDS = (
    "class_objects",  # by class: how many objects the images have
    "class_positives",  # by class: how many positives the minibatch has, appended ground truth included
)


class ImbalanceCounts:
    """All fields of one stage and branch, in one tensor, so that reading them is one copy.

    Args:
        device: where they are counted.
        num_classes: entries of each of ``CLASS_FIELDS``; those of ``FIELDS`` have the number given there.
    """

    def __init__(self, device, num_classes: int = 0):
        sizes = {**FIELDS, **{name: num_classes for name in CLASS_FIELDS}}
        self.num_classes = num_classes
        self.values = torch.zeros(sum(sizes.values()), dtype=torch.float64, device=device)
        self._fields = dict(zip(sizes, self.values.split(list(sizes.values()))))  # views

    def with_values(self, values: Tensor) -> ImbalanceCounts:
        """Other counts of the same fields, on the same device; ``ValueError`` for values of other fields."""
        if values.shape != self.values.shape:
            raise ValueError(f"ImbalanceCounts: {tuple(values.shape)} values for {len(self.values)} entries")
        counts = ImbalanceCounts(self.values.device, self.num_classes)
        counts.values.copy_(values)
        return counts

    def __getitem__(self, name: str) -> Tensor:
        """The entries of a field, a view."""
        return self._fields[name]

    def count(self, name: str, where: Tensor) -> None:
        """Add the number of true entries of ``where`` to a field of one entry."""
        self[name].add_(where.sum())

    def tally(self, name: str, indices: Tensor, where: Tensor) -> None:
        """Add 1 to the field's entry at each index (R,) for which ``where`` (R,) is true.

        An index beyond the field counts for its last entry."""
        field = self[name]
        field.index_add_(0, indices.clamp(0, len(field) - 1), where.to(field.dtype))

    def histogram(self, name: str, values: Tensor, where: Tensor, weights=None) -> None:
        """Add a row to the bin of its value.

        Args:
            name: field over [0, 1]; a value of 1 falls into the last bin.
            values: (R,) in [0, 1].
            where: (R,) bool, the rows that count. The other rows may hold anything, NaN too.
            weights: (R,) what a row adds; None: 1.
        """
        field = self[name]
        bins = (values.nan_to_num() * len(field)).long().clamp(0, len(field) - 1)
        amounts = where if weights is None else torch.where(where, weights, torch.zeros_like(weights))
        field.index_add_(0, bins, amounts.to(field.dtype))

    def as_lists(self) -> Dict[str, list]:
        """``{field: list of numbers}``; whole numbers as int, so that a file of them is small."""
        sizes = [len(field) for field in self._fields.values()]
        return {
            name: [int(v) if v.is_integer() else round(v, 6) for v in part.tolist()]
            for name, part in zip(self._fields, self.values.cpu().split(sizes))
        }
