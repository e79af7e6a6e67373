"""What a two-stage detector trains on, counted in the training step: IoUs, accuracy, losses, scores (see ``FIELDS``).

Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes; B: images.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Dict, List, Tuple

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

from ..modeling.dynamic_statistics import EXCLUDED, kth_largest
from ..modeling.predictions import log_variances_of
from ..modeling.sample_weights import RoIWeights
from ..modeling.stage_view import StageView
from .counts import BEST_ERROR, BEST_IOU, MAX_OBJECTS, ImbalanceCounts
from .sample_gradients import box_loss_and_gradient, class_loss_and_gradient

__all__ = ["ImbalanceRecorder", "regression_targets"]

_UNITS = (10.0, 10.0)
"""Units of errors where the box coder has no deltas, and its ``weights`` are none: those of detectron2's deltas."""


class ImbalanceRecorder:
    """Counts a window of training steps of one ``BalancedROIHeads``, for every stage and branch.

    Put it into ``heads.observers``. It draws nothing and changes nothing, so training with it is bit-identical (box
    heads with BatchNorm or dropout aside: branches beside the main one predict its RoIs, too). The counters stay on the
    device; nothing waits for it, but for a check that detectron2's ``get_deltas`` makes in every call, and for the
    foreground's rows where samples are weighed. Losses and gradients are counted as they are weighed.

    Args:
        heads: the ROI heads whose steps it will see: branches, predictors and the IoU branch are read from it.
    """

    def __init__(self, heads):
        self.heads = heads
        self.counts: Dict[Tuple[int, int], ImbalanceCounts] = {}

    def reset(self) -> None:
        """Start a new window."""
        for counts in self.counts.values():
            counts.values.zero_()

    @torch.no_grad()
    def observe(self, view: StageView) -> None:
        """Count one stage of one forward pass."""
        stage, targets, labeled, samples, pooled, predictions = view
        main = self.heads.main_branch
        for p in range(len(predictions)):
            counts = self._of(stage, p, predictions[p][0].device)
            self._count_proposals(counts, targets, labeled[p])
            self._count_objects(counts, targets, labeled[p], samples[p])
            rois = _Rois(samples[p], self.heads.num_classes)
            predictor = self.heads.branches[p].predictor(stage)
            coder = predictor.box2box_transform
            self._count_targets(counts, labeled[p], coder.weights if isinstance(coder, Box2BoxTransform) else _UNITS)
            weights = self._weights(view, p)
            self._count_classes(counts, rois, predictor, predictions[p], samples[p], weights.cls)
            self._count_boxes(counts, rois, self._refined(stage, p, predictions[p], pooled[p], samples[p]))
            self._count_box_loss(counts, rois, predictor, predictions[p], weights.box)
            self._count_predicted_ious(counts, rois, samples[p], pooled[p], stage)
            if p != main:
                on_main = self.heads.branches[p].predict(pooled[main], stage)
                of_main = _foreground(self.heads.branches[main].predictor(stage), predictions[main], samples[main])
                difference = _foreground(predictor, on_main, samples[main]) - of_main
                counts.histogram("score_differences", difference.abs(), torch.ones_like(difference, dtype=torch.bool))

    def new_counts(self, device) -> ImbalanceCounts:
        """Empty counts of these heads."""
        return ImbalanceCounts(device, self.heads.num_classes)

    def _of(self, stage, p, device) -> ImbalanceCounts:
        if (stage, p) not in self.counts:
            self.counts[stage, p] = self.new_counts(device)
        return self.counts[stage, p]

    def _count_proposals(self, counts, targets, labeled):
        for image, objects in zip(labeled, targets):
            proposal = (image.gt_classes >= 0) & ~image.is_gt  # -1: in an ignore region, or between two thresholds
            counts.histogram("proposal_ious", image.matched_ious, proposal)
            positives = (proposal & (image.gt_classes < self.heads.num_classes)).sum()
            number = min(len(objects), MAX_OBJECTS)
            counts["images"].add_(1)
            counts["images_by_objects"][number].add_(1)
            counts["positives_by_objects"][number].add_(positives)
            counts["squared_positives_by_objects"][number].add_(positives**2)

    def _count_objects(self, counts, targets, labeled, samples):
        """Positives of every object, and objects by class; an image without objects has none to count."""
        for objects, all_of_image, sampled in zip(targets, labeled, samples):
            if len(objects) == 0:
                continue
            every = torch.ones_like(objects.gt_classes, dtype=torch.bool)
            counts.tally("class_objects", objects.gt_classes, every)
            for field, image in (("objects_by_positives", all_of_image), ("objects_by_samples", sampled)):
                positive = (image.gt_classes >= 0) & (image.gt_classes < self.heads.num_classes) & ~image.is_gt
                number = torch.zeros_like(objects.gt_classes).index_add_(0, image.matched_idxs, positive.long())
                counts.tally(field, number, every)

    def _weights(self, view, p) -> RoIWeights:
        """The weights of a branch's RoIs, as its losses get them."""
        if not self.heads.sample_weights.weighs:
            return RoIWeights()
        losses = self.heads.branches[p].predictor(view.stage).roi_losses(view.predictions[p], view.samples[p])
        return self.heads.sample_weights.weights(view.of_branch(p), losses)

    def _count_targets(self, counts, labeled, weights):
        """How far the proposals are from their objects; an image without objects has none to count."""
        for image in labeled:
            if not image.has("gt_boxes"):
                continue
            proposal = (image.gt_classes >= 0) & ~image.is_gt
            targets = regression_targets(image.proposal_boxes.tensor, image.gt_boxes.tensor)
            for name, values in zip("xywh", targets.unbind(1)):
                counts.histogram(f"target_{name}", image.matched_ious, proposal, values)
                counts.histogram(f"target_{name}_squares", image.matched_ious, proposal, values**2)
            errors = (weights[0] * targets[:, 0].abs() + weights[1] * targets[:, 1].abs()) / 2
            best = ("best_iou_sum", image.matched_ious, BEST_IOU), ("best_error_sum", -errors, BEST_ERROR)
            for field, values, k in best:
                rows = torch.where(proposal, values, EXCLUDED)[None]
                counts[field].add_(kth_largest(rows, k)[0].abs().nan_to_num())

    def _count_classes(self, counts, rois, predictor, predictions, samples, weights):
        scores = _scores(predictor, predictions, samples)
        correct = scores.argmax(dim=1) == rois.gt_classes
        for kind, rows in (("positive", rois.positive), ("negative", ~rois.positive)):
            counts.count(f"{kind}s", rows)
            counts.count(f"{kind}s_correct", rows & correct)
            counts.histogram(f"{kind}_scores", 1 - scores[:, -1], rows)
            counts.histogram(f"{kind}_ious", rois.ious, rows & ~rois.is_gt)
        counts.count("appended_gt", rois.positive & rois.is_gt)
        counts.tally("class_positives", rois.gt_classes, rois.positive)
        for field, values in zip(
            ("cls_loss", "cls_gradient"), class_loss_and_gradient(predictor, predictions, samples)
        ):
            counts.histogram(field, rois.ious, ~rois.is_gt, values if weights is None else values * weights)

    def _count_boxes(self, counts, rois, boxes):
        rows = rois.positive & ~rois.is_gt
        ious = matched_pairwise_iou(boxes, rois.gt_boxes)
        counts.histogram("positive_iou_sum", rois.ious, rows, rois.ious)
        counts.histogram("refined_ious", ious, rows)
        counts.histogram("refined_iou_sum", rois.ious, rows, ious)

    def _count_box_loss(self, counts, rois, predictor, predictions, weights):
        if not any(parameter.requires_grad for parameter in predictor.bbox_pred.parameters()):
            return  # an IoU branch regresses the boxes, and not these
        deltas = _of_gt_class(predictions[1].float(), rois.gt_classes, len(predictor.box2box_transform.weights))
        log_variances = log_variances_of(predictions)
        if log_variances is not None:
            log_variances = _of_gt_class(log_variances.float(), rois.gt_classes)
        boxes = rois.proposal_boxes.tensor, rois.gt_boxes.tensor
        of_rois = box_loss_and_gradient(predictor, deltas, *boxes, rois.positive, log_variances)
        for field, values in zip(("box_loss", "box_gradient"), of_rois):
            rows = rois.positive & ~rois.is_gt
            counts.histogram(field, rois.ious, rows, values if weights is None else values * weights)

    def _count_predicted_ious(self, counts, rois, samples, pooled, stage):
        boxes = [s.proposal_boxes.tensor for s in samples]
        minibatch = SimpleNamespace(boxes=boxes, pooled=pooled, stage=stage)  # the part of BoxCandidates that is used
        predicted = self.heads.iou_branch.predicted_ious(minibatch, efo=False)
        if predicted is None:
            return
        predicted = torch.cat(list(predicted)).float()
        sums = {"predicted_ious": None, "predicted_iou_sum": predicted, "predicted_iou_true_sum": rois.ious}
        for field, weights in sums.items():
            counts.histogram(field, predicted, ~rois.is_gt, weights)

    def _refined(self, stage, p, predictions, pooled, samples) -> Boxes:
        """The minibatch after regression, clipped to the images: ``Boxes`` (R)."""
        predictor = self.heads.branches[p].predictor(stage)
        per_image: List[Boxes] = []
        for boxes, image in zip(self.heads.iou_branch.boxes(predictor, predictions, pooled, samples, stage), samples):
            per_image.append(Boxes(_of_gt_class(boxes.float(), image.gt_classes)))
            per_image[-1].clip(image.image_size)
        return Boxes.cat(per_image)


class _Rois:
    """A minibatch over all images: classes, IoUs and boxes, R rows each. A background row is its own ground truth."""

    def __init__(self, samples, num_classes):
        self.gt_classes = torch.cat([s.gt_classes for s in samples])
        self.ious = torch.cat([s.matched_ious for s in samples])
        self.is_gt = torch.cat([s.is_gt for s in samples])
        self.positive = self.gt_classes < num_classes
        self.proposal_boxes = Boxes.cat([s.proposal_boxes for s in samples])
        self.gt_boxes = Boxes.cat([s.gt_boxes if s.has("gt_boxes") else s.proposal_boxes for s in samples])


def regression_targets(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """(dx, dy, dw, dh) (N, 4) from boxes to ground truth, in units of the boxes; 0 where a box has no extent."""
    sizes, gt_sizes = boxes[:, 2:] - boxes[:, :2], gt_boxes[:, 2:] - gt_boxes[:, :2]
    shifts = (gt_boxes[:, :2] + gt_sizes / 2 - boxes[:, :2] - sizes / 2) / sizes
    return torch.cat([shifts, (gt_sizes / sizes).log()], dim=1).nan_to_num(0.0, 0.0, 0.0)


def _scores(predictor, predictions, samples) -> Tensor:
    """Scores (R, K+1) as at inference, background last."""
    logits, deltas = predictions
    return torch.cat(list(predictor.predict_probs((logits.float(), deltas), samples)))


def _foreground(predictor, predictions, samples) -> Tensor:
    """Foreground score (R,)."""
    return 1 - _scores(predictor, predictions, samples)[:, -1]


def _of_gt_class(values: Tensor, gt_classes: Tensor, num: int = 4) -> Tensor:
    """Of (R, num K) values, ``num`` for each class, those of the ground truth's, any class's for background; (R, num)
    stays as it is."""
    if values.shape[1] == num:
        return values
    per_class = values.view(len(values), values.shape[1] // num, num)
    rows = torch.arange(len(values), device=values.device)
    return per_class[rows, gt_classes.clamp(0, per_class.shape[1] - 1)]
