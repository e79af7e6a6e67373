"""The IoU-branch axis: who regresses the boxes, and whether predicted IoUs change the scores.

Every IoU branch has the methods of :class:`PredictorBoxes`, which is what a detector without one uses.

Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes; S: generated boxes of the batch.
"""

from typing import Optional

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from torch import nn

from ...utils.errors import Refusal
from ...utils.numbers import require
from ..registry import IOU_BRANCH_REGISTRY
from ..task_features import TaskShapes
from .branches import as_module
from .candidates import products_of
from .iou_losses import interval_weights_of, iou_loss, weighted_box_loss, weights_by_iou
from .iou_samples import SAMPLE_SOURCES, check_read, negatives_of

__all__ = ["PredictorBoxes", "IoUBranch"]

_SMALLEST_IOU = 1e-4  # a score of exactly 0 would make ties


class PredictorBoxes:
    """No IoU branch: boxes come from the predictor's own deltas, and scores are the class probabilities."""

    replaces_regressor = False
    """Whether the predictors' own box regressors, and so their box losses, are not used."""

    predicts_ious = False
    """Whether :meth:`predicted_ious` gives any."""

    efo = False
    """Whether they are predicted from features pooled anew at the refined boxes."""

    def take_over(self, predictor):
        """Switch off what this branch replaces in a predictor of the ROI heads: nothing."""

    def classifier_losses(self, predictor, predictions, samples, weigh=None):
        """Losses of a branch's predictor on its minibatch: those of the predictor itself. A dict of scalar tensors.

        Args:
            weigh: weights of the RoIs' losses, see ``BalancedFastRCNNOutputLayers.losses``.
        """
        return predictor.losses(predictions, samples, *[weigh] if weigh else [])  # detectron2's predictors take none

    def losses(self, pool, targets, samples, stage):
        """Losses of the IoU branch's own modules at a training stage: none. A dict of scalar tensors.

        Args:
            pool: function from a list of ``Boxes`` (one an image) to pooled features (R, C, h, w).
            targets: list of ``Instances`` with ``gt_boxes``.
            samples: the main branch's minibatch of this stage.
            stage: index of the stage.
        """
        return {}

    def boxes(self, predictor, predictions, pooled, proposals, stage):
        """The boxes that a stage predicts: one tensor (Ri, 4) or (Ri, 4K) an image, in pixels."""
        return predictor.predict_boxes(predictions, proposals)

    def variances(self, predictor, predictions, proposals):
        """Predicted variances of these boxes' corners in square pixels, of their shapes; ``None`` without any."""
        predict = getattr(predictor, "predict_variances", None)
        return predict(predictions, proposals) if predict else None

    def confidences(self, predictor, predictions, proposals):
        """How sure the predictor's box coder is of these boxes, (Ri, 1) or (Ri, K) an image; ``None`` if it does not
        tell."""
        predict = getattr(predictor, "predict_confidences", None)
        return predict(predictions, proposals) if predict else None

    def predicted_ious(self, candidates, efo, rows=None):
        """Predicted IoUs of the candidates' boxes, one tensor (Ri,) an image; ``None`` where nothing predicts them.

        Args:
            candidates: :class:`~.candidates.BoxCandidates`.
            efo: predict from features pooled anew at the refined boxes, instead of the proposals' (sec. 3.2).
            rows: with ``efo``, predict for these rows only (a bool tensor (Ri,) an image), and the others get a
                value close to 0; ``None``: for all.
        """
        return None

    def combined_scores(self, class_scores, ious):
        """Final scores from class probabilities and predicted IoUs, tensors that broadcast."""
        return class_scores

    def rescore(self, candidates):
        """Final scores of the candidates, and the threshold that detections must exceed.

        Returns scores (Ri, K+1), background last, an image, and the threshold that goes with them.
        """
        if candidates.confidences is None:
            return candidates.scores, candidates.predictor.test_score_thresh
        return products_of(candidates, candidates.confidences, torch.mul)


@IOU_BRANCH_REGISTRY.register()
class IoUBranch(PredictorBoxes, nn.Module):
    """Class-agnostic box regressor and IoU predictor on features of their own (IoU-Uniform R-CNN, sec. 3).

    They train on boxes generated uniformly in IoU, while the classifier keeps the proposals. At inference the
    regressor refines the boxes, and the predicted IoU of a refined box multiplies its class score: the product ranks
    the boxes in NMS and is the final score. With ``efo`` (elimination of feature offsets, sec. 3.2) the IoU is
    predicted from features pooled anew at the refined box.

    Args:
        num_classes: number of foreground classes.
        iou_head: box head from pooled features to a vector; a list of them: one a stage.
        bbox_reg_weights: weights of the box deltas (1 / stds), 4 numbers; with a list of heads, a list of them.
        regressor_samples, iou_samples: what each of the two trains on, one of ``SAMPLE_SOURCES``: "uniform" and
            "rejection" are generated boxes (``iou_uniform.py``), "proposals" the minibatch's positives (table 6).
        num_intervals: IoU intervals that split the range of a stage evenly, 1 to 100; ``None``: the paper's four (sec. 4.1).
        num_per_interval, max_per_image: of the generators. The paper's 64 boxes an object are 16 of four intervals.
        samples_per_positive: if not 0, keep only so many generated boxes for every positive of the minibatch that the RPN
            produced, appended ground truth not counted (table 5: 1 is "equal", 2 is "double").
        iou_negatives: the IoU predictor trains on the minibatch's negatives, too, which the paper advises against (end of
            sec. 3.2).
        interval_weights: regression weights (Eq. 2) by IoU: a name in ``iou_losses.INTERVAL_WEIGHTS``, or five numbers;
            ``None``: the paper's.
        predict_iou: without it there is only the regressor, and scores are not changed (table 4, row 2).
        efo: pool features at the refined boxes to predict their IoU; otherwise it is predicted from the proposals.
        efo_all: do so for every refined box, not only for those whose class score exceeds the threshold. Slower, and
            the detections are the same.
        cls_power, iou_power: score = class score ** cls_power * IoU ** iou_power.
        iou_activation: "sigmoid" keeps the predicted IoU in (0, 1); "clamp" is the released linear output, clamped.

    Raises ``ValueError`` for settings out of range, ``Refusal`` for settings that nothing here would read.
    """

    replaces_regressor = True

    def __init__(
        self,
        *,
        num_classes,
        iou_head,
        bbox_reg_weights,
        regressor_samples="uniform",
        iou_samples="uniform",
        iou_negatives=False,
        num_intervals: Optional[int] = None,
        num_per_interval=16,
        max_per_image=2048,
        samples_per_positive=0.0,
        interval_weights=None,
        predict_iou=True,
        efo=True,
        efo_all=False,
        cls_power=1.0,
        iou_power=1.0,
        iou_activation="sigmoid",
    ):
        nn.Module.__init__(self)
        self.iou_head = as_module(iou_head)
        heads = list(self.iou_head) if isinstance(self.iou_head, nn.ModuleList) else [self.iou_head]
        for head in heads:
            if isinstance(head.output_shape, TaskShapes):
                name = f"iou_head={type(head).__name__} (MODEL.ROI_BOX_HEAD.NAME)"
                reason = "the branch has the box regressor, so that the head's features for it would not be trained"
                raise Refusal(name, f"iou_branch={type(self).__name__} (MODEL.BALANCED.IOU_BRANCH)", reason)
        weights = bbox_reg_weights if isinstance(self.iou_head, nn.ModuleList) else [bbox_reg_weights]
        if len(weights) != len(heads):
            raise ValueError(f"IoUBranch: bbox_reg_weights must be as many as heads ({len(heads)}), got {len(weights)}")
        self.transforms = [Box2BoxTransform(weights=tuple(w)) for w in weights]
        self.regressor = nn.ModuleList(_linear(head, 4, std=0.001) for head in heads)
        self.iou_predictor = nn.ModuleList(_linear(head, 1, std=0.01) for head in heads) if predict_iou else None
        names = {"regressor_samples": regressor_samples, **({"iou_samples": iou_samples} if predict_iou else {})}
        for argument, name in names.items():
            if name not in SAMPLE_SOURCES:
                raise ValueError(f"IoUBranch: {argument} must be one of {sorted(SAMPLE_SOURCES)}, got {name!r}")
        require(self, "samples_per_positive", samples_per_positive, at_least=0)
        if num_intervals is not None:
            require(self, "num_intervals", num_intervals, at_least=1, at_most=100, integer=True)
        self.num_classes, self.iou_negatives = num_classes, iou_negatives
        self.regressor_samples, self.iou_samples = regressor_samples, iou_samples
        settings = {"num_intervals": num_intervals, "samples_per_positive": samples_per_positive}
        settings.update(num_per_interval=num_per_interval, max_per_image=max_per_image)
        settings.update(num_classes=num_classes, num_stages=len(heads))
        self.sources = nn.ModuleDict({name: SAMPLE_SOURCES[name](**settings) for name in sorted(set(names.values()))})
        check_read(self.sources, predict_iou, iou_negatives, num_intervals, samples_per_positive)
        self.register_buffer("interval_weights", interval_weights_of(interval_weights), persistent=False)
        if iou_activation not in ("sigmoid", "clamp"):
            raise ValueError(f"IoUBranch: iou_activation must be 'sigmoid' or 'clamp', got {iou_activation!r}")
        self.efo, self.efo_all = efo, efo_all
        self.cls_power = require(self, "cls_power", cls_power, at_least=0)
        self.iou_power = require(self, "iou_power", iou_power, at_least=0)
        self.iou_activation = iou_activation

    @property
    def predicts_ious(self):
        return self.iou_predictor is not None

    def take_over(self, predictor):
        """Freeze the predictor's own regressor: unused but trainable weights break DDP and would still decay."""
        predictor.bbox_pred.requires_grad_(False)
        predictor.regresses_boxes = False

    def classifier_losses(self, predictor, predictions, samples, weigh=None):
        losses = super().classifier_losses(predictor, predictions, samples, weigh)
        return {name: loss for name, loss in losses.items() if name != "loss_box_reg"}

    def losses(self, pool, targets, samples, stage):
        """``loss_iou_box_reg`` (Eq. 2) and ``loss_iou``; both are 0, connected to the graph, without ground truth."""
        drawn = {name: source(targets, samples, stage) for name, source in self.sources.items()}
        features = {name: self._features(pool(boxes.per_image), stage) for name, boxes in drawn.items()}
        boxes, x = drawn[self.regressor_samples], features[self.regressor_samples]
        target = self.transforms[self._index(stage)].get_deltas(boxes.boxes, boxes.gt_boxes)
        weights = weights_by_iou(boxes.ious, self.interval_weights)
        losses = {"loss_iou_box_reg": weighted_box_loss(self.regressor[self._index(stage)](x), target, weights)}
        if self.iou_predictor is not None:
            ious, x = drawn[self.iou_samples].ious, features[self.iou_samples]
            if self.iou_negatives:
                negatives = negatives_of(samples, self.num_classes)
                ious = torch.cat([ious, negatives.ious])
                x = torch.cat([x, self._features(pool(negatives.per_image), stage)])
            predicted = self._activate(self.iou_predictor[self._index(stage)](x)[:, 0])
            losses["loss_iou"] = iou_loss(predicted, ious)
        return losses

    def boxes(self, predictor, predictions, pooled, proposals, stage):
        deltas = self.regressor[self._index(stage)](self._features(pooled, stage))  # (R, 4)
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        refined = self.transforms[self._index(stage)].apply_deltas(deltas, boxes)
        return refined.split([len(p) for p in proposals])

    def variances(self, predictor, predictions, proposals):
        return None

    def predicted_ious(self, candidates, efo, rows=None):
        if self.iou_predictor is None:
            return None
        ious = self._refined_ious(candidates, rows) if efo else self._ious(candidates.pooled, candidates.stage)
        return ious.split([len(image_boxes) for image_boxes in candidates.boxes])

    def combined_scores(self, class_scores, ious):
        return class_scores**self.cls_power * ious**self.iou_power

    def rescore(self, candidates):
        ious = self.predicted_ious(candidates, self.efo, None if self.efo_all else candidates.rows_above_threshold())
        if ious is None:
            return candidates.scores, candidates.predictor.test_score_thresh
        return products_of(candidates, [image_ious[:, None] for image_ious in ious], self.combined_scores)

    def _refined_ious(self, candidates, rows):
        """Predicted IoU (R,) of the refined boxes, the smallest one where ``rows`` leaves a box out."""
        boxes = candidates.boxes
        rows = rows or [torch.ones(len(b), dtype=torch.bool, device=b.device) for b in boxes]
        refined = []
        for image_boxes, image_rows, size in zip(boxes, rows, candidates.image_sizes):
            refined.append(Boxes(image_boxes[image_rows]))
            refined[-1].clip(size)
        rows = torch.cat(rows)
        ious = torch.full(rows.shape, _SMALLEST_IOU, device=rows.device, dtype=boxes[0].dtype)
        return ious.masked_scatter(rows, self._ious(candidates.pool(refined), candidates.stage).to(ious.dtype))

    def _ious(self, pooled, stage):
        predicted = self.iou_predictor[self._index(stage)](self._features(pooled, stage))[:, 0]
        return self._activate(predicted).clamp(_SMALLEST_IOU, 1.0)

    def _activate(self, predicted):
        return predicted.sigmoid() if self.iou_activation == "sigmoid" else predicted

    def _features(self, pooled, stage):
        head = self.iou_head[stage] if isinstance(self.iou_head, nn.ModuleList) else self.iou_head
        return head(pooled).flatten(start_dim=1)

    def _index(self, stage):
        return stage if isinstance(self.iou_head, nn.ModuleList) else 0


def _linear(head, num_outputs, std):
    shape = head.output_shape
    layer = nn.Linear(shape.channels * (shape.height or 1) * (shape.width or 1), num_outputs)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
