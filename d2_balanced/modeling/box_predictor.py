"""detectron2's ``FastRCNNOutputLayers`` with a pluggable classification loss and box loss (seat 5)."""

from __future__ import annotations

from typing import Callable, List, Optional, Tuple, Union

import torch
from detectron2.config import configurable
from detectron2.layers import cat, nonzero_tuple
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from ..utils.errors import Refusal
from .accuracy import accuracy_in_one_transfer, log_accuracy
from .balanced_keys import balanced_keys
from .box_coders import seat as coder_seat
from .box_coders.regressor import regressor_of
from .box_losses import seat as box_seat
from .box_losses.build import build_box_loss, check_box_loss_type, check_smooth_l1_beta, detectron2_box_loss
from .box_losses.overlap import elementwise_iou
from .cls_losses import CrossEntropy
from .cls_losses import seat as cls_seat
from .cls_losses.build import build_cls_loss, check_cls_loss
from .predictions import BoxPredictions, log_variances_of
from .sample_weights.seat import RoILosses, RoIWeights
from .task_features import TaskShapes

__all__ = ["BalancedFastRCNNOutputLayers"]


class BalancedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Classifier and box regressor of one box head; classification loss and box loss are components.

    Weights, keys and inference are detectron2's, but for what a loss asks for: scores by sigmoids, the classifier's
    bias, a layer ``bbox_log_variance``.

    Args:
        input_shape: as detectron2's; or a :class:`TaskShapes`, of a head that gives each of the two layers a feature.
        box2box_transform: detectron2's, or another box coder, see ``box_coders/seat.py``.
        cls_loss: callable ``(logits (R, K+1), labels (R,)) -> (R,)``, see ``cls_losses/seat.py``; None keeps
            detectron2's own loss (cross entropy; in main also ``use_sigmoid_ce`` and ``use_fed_loss``).
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``, see ``box_losses/seat.py``; None keeps
            detectron2's own loss (``box_reg_loss_type``, ``smooth_l1_beta``). Its method
            ``adopt(bbox_reg_weights, num_classes)``, if it has one, is called with those of this predictor. The other
            arguments are ``FastRCNNOutputLayers``'.

    Raises:
        Refusal: for a loss beside another choice of it by detectron2's own arguments, or one that does not train what
            the box coder decodes; for a head and a box coder that do not fit together.
    """

    #: False where an IoU branch regresses the boxes in place of this predictor
    regresses_boxes = True

    @configurable
    def __init__(
        self, input_shape, *, cls_loss: Optional[Callable] = None, box_loss: Optional[Callable] = None, **kwargs
    ):
        both = input_shape if isinstance(input_shape, TaskShapes) else TaskShapes(input_shape, input_shape)
        super().__init__(both.cls, **kwargs)
        coder = self.box2box_transform
        coder_name = f"box2box_transform={type(coder).__name__} (MODEL.BALANCED.BOX_CODER)"
        if both.box is not both.cls:
            self.bbox_pred = regressor_of(both.box, coder, self.bbox_pred.out_features, coder_name)
        name = type(self).__name__
        check_cls_loss(name, cls_loss, getattr(self, "use_sigmoid_ce", False))
        check_box_loss_type(name, box_loss, self.box_reg_loss_type)
        check_smooth_l1_beta(name, box_loss, self.smooth_l1_beta)
        coder_seat.check_sees(box_loss or self.box_reg_loss_type, coder, coder_name)
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        if hasattr(cls_loss, "adopt"):
            cls_loss.adopt(self.num_classes)
        if hasattr(box_loss, "adopt"):  # a loss that measures proposals, in this predictor's units
            box_loss.adopt(self.box2box_transform.weights, self.num_classes)
        self._initialise_for_losses()

    def _initialise_for_losses(self):
        bias = getattr(self.cls_loss, "initial_bias", None)
        if bias is not None:
            with torch.no_grad():
                self.cls_score.bias[:-1] = bias
        self.bbox_log_variance = None
        if getattr(self.box_loss, "wants_log_variances", False):
            self.bbox_log_variance = nn.Linear(self.bbox_pred.in_features, self.bbox_pred.out_features)
            # So small that the loss starts as SmoothL1 (He et al. 2019, on the KL loss).
            nn.init.normal_(self.bbox_log_variance.weight, std=0.0001)
            nn.init.zeros_(self.bbox_log_variance.bias)

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        head, balanced = cfg.MODEL.ROI_BOX_HEAD, balanced_keys(cfg)
        ret["cls_loss"] = build_cls_loss(
            balanced.CLS_LOSS, "MODEL.BALANCED.CLS_LOSS", head.get("USE_SIGMOID_CE", False)
        )
        ret["box_loss"] = build_box_loss(
            balanced.BOX_LOSS,
            "MODEL.BALANCED.BOX_LOSS",
            smooth_l1_beta=head.SMOOTH_L1_BETA,
            loss_type=head.BBOX_REG_LOSS_TYPE,
            loss_type_key="MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
        )
        return ret

    def forward(self, x: Union[Tensor, Tuple[Tensor, Tensor]]):
        """Class logits (R, K+1) and deltas (R, 4) or (R, 4K), as detectron2's; :class:`BoxPredictions` where the box
        loss wants log variances.

        Args:
            x: (R, ...) features; or a pair, of which the classifier reads the first, the regressor the second.
        """
        of_classes, of_boxes = (each.flatten(start_dim=1) for each in (x if isinstance(x, tuple) else (x, x)))
        predictions = self.cls_score(of_classes), self.bbox_pred(of_boxes)
        if self.bbox_log_variance is None:
            return predictions
        return BoxPredictions(*predictions, self.bbox_log_variance(of_boxes))

    def losses(self, predictions, proposals, weigh: Optional[Callable[[RoILosses], RoIWeights]] = None):
        """detectron2's losses; ``loss_cls`` is the mean of ``cls_loss``, where that is another one than detectron2's.

        For the other arguments see ``FastRCNNOutputLayers.losses``.

        Args:
            weigh: gives a weight to every RoI's losses, which are then summed and divided as without weights.
        """
        if weigh is not None:
            return self._weighed_losses(predictions, proposals, weigh)
        logits, deltas = predictions
        log_variances = log_variances_of(predictions)
        # detectron2 hands these on to box_reg_loss as they are, and knows of no others.
        joined = deltas if log_variances is None else torch.cat([deltas, log_variances], dim=1)
        with accuracy_in_one_transfer():
            losses = super().losses((self._logits_for_the_log(logits), joined), proposals)
        if not cls_seat.is_cross_entropy(self.cls_loss):
            # Replaced, not computed here from the start: a later detectron2 may add to its losses.
            loss = cls_seat.mean_loss(self.class_losses(predictions, proposals, learn=self._learns()))
            losses["loss_cls"] = loss * self.loss_weight.get("loss_cls", 1.0)
        return losses

    def _weighed_losses(self, predictions, proposals, weigh):
        losses = self.roi_losses(predictions, proposals, learn=self._learns())
        log_accuracy(self._logits_for_the_log(predictions[0]), losses.labels)
        weights, boxes = weigh(losses), losses.box_elements
        if weights.box is not None:
            self._check_weighs_own_boxes()
            boxes = boxes * weights.box[losses.foreground].view(-1, *[1] * (boxes.dim() - 1))
        reduced = {
            "loss_cls": cls_seat.mean_loss(losses.cls if weights.cls is None else losses.cls * weights.cls),
            "loss_box_reg": boxes.sum() / max(losses.labels.numel(), 1.0),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in reduced.items()}

    def _check_weighs_own_boxes(self):
        """Sample weights that have said that they leave the boxes alone, beside an IoU branch, and weigh them."""
        if not self.regresses_boxes:
            weights = "box weights (RoIWeights.box) of sample_weights (MODEL.BALANCED.SAMPLE_WEIGHTS)"
            reason = "it regresses the boxes with a loss of its own, and they would be ignored"
            raise Refusal(weights, "an IoU branch (MODEL.BALANCED.IOU_BRANCH)", reason, "return None for them")

    def roi_losses(self, predictions, proposals: List[Instances], learn: bool = False) -> RoILosses:
        """The losses of every RoI, unreduced, without detectron2's weights; arguments as for :meth:`class_losses`."""
        cls = self.class_losses(predictions, proposals, learn)
        labels, boxes = _labels_of(proposals, predictions[0]), _boxes_of(proposals, predictions[1])
        if self.regresses_boxes:
            columns = predictions[1], log_variances_of(predictions)
            foreground, elements = self._foreground_losses(*boxes, *columns, labels, learn)
        else:
            foreground, elements = labels[:0], predictions[1][:0, 0]
        return RoILosses(self, predictions, proposals, labels, cls, foreground, elements)

    def class_losses(self, predictions, proposals: List[Instances], learn: bool = False) -> Tensor:
        """The losses (R,) of ``cls_loss``, unreduced, without detectron2's weight. For the others see :meth:`losses`.

        Args:
            learn: this is the training pass, from which the loss may learn.
        """
        labels = _labels_of(proposals, predictions[0])
        loss = self.cls_loss
        if loss is None:
            loss = CrossEntropy("sigmoid" if getattr(self, "use_sigmoid_ce", False) else "softmax")
        wanted = getattr(loss, "wants_ious", "")
        ious = self.ious(predictions[1], labels, proposals, wanted) if wanted else None
        return cls_seat.class_losses(loss, predictions[0], labels, ious, learn)

    @torch.no_grad()
    def ious(self, deltas: Tensor, labels: Tensor, proposals: List[Instances], of: str) -> Tensor:
        """IoU (R,) of the "proposal", or of the box "predicted" for the true class, with the ground truth; 0 for
        background."""
        boxes, gt_boxes = _boxes_of(proposals, deltas)
        if of == "predicted":
            boxes = self.boxes_of_classes(deltas, labels, proposals)
        return elementwise_iou(boxes, gt_boxes) * (labels < self.num_classes)

    @torch.no_grad()
    def boxes_of_classes(self, deltas: Tensor, classes: Tensor, proposals: List[Instances]) -> Tensor:
        """The boxes (R, 4) that are predicted for these classes (R,); any class's for the background K."""
        rows = torch.arange(len(classes), device=classes.device)
        own = self._of_gt_class(deltas, classes.clamp(max=self.num_classes - 1), rows)
        return self.box2box_transform.apply_deltas(own, _boxes_of(proposals, deltas)[0])

    def box_reg_loss(self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor):
        """Sum of the box loss over the foreground RoIs, divided by the number of all R sampled RoIs (at least 1).

        Args:
            proposal_boxes, gt_boxes: (R, 4) absolute XYXY pixels.
            pred_deltas: (R, 4) class-agnostic or (R, 4K) class-specific; followed by as many log variances, if the loss
                wants them.
            gt_classes: (R,) in [0, K]; K is background.

        Returns a scalar; a graph-connected 0 without foreground.
        """
        if self.box_loss is None:
            return super().box_reg_loss(proposal_boxes, gt_boxes, pred_deltas, gt_classes)
        deltas, log_variances = pred_deltas, None
        if self.bbox_log_variance is not None:
            deltas, log_variances = pred_deltas.chunk(2, dim=1)
        columns = deltas, log_variances
        losses = self._foreground_losses(proposal_boxes, gt_boxes, *columns, gt_classes, learn=self._learns())[1]
        return losses.sum() / max(gt_classes.numel(), 1.0)

    def _foreground_losses(self, proposal_boxes, gt_boxes, deltas, log_variances, gt_classes, learn):
        """The rows (F,) of the foreground, and their box losses, (F, 4) or (F,)."""
        foreground = nonzero_tuple((gt_classes >= 0) & (gt_classes < self.num_classes))[0]
        loss = self.box_loss
        return foreground, box_seat.box_losses(
            detectron2_box_loss(self.box_reg_loss_type, self.smooth_l1_beta) if loss is None else loss,
            self.box2box_transform,
            self._of_gt_class(deltas, gt_classes, foreground),
            proposal_boxes[foreground],
            gt_boxes[foreground],
            None if log_variances is None else self._of_gt_class(log_variances, gt_classes, foreground),
            learn=learn,
        )

    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _of_gt_class(self, values: Tensor, gt_classes: Tensor, rows: Tensor) -> Tensor:
        """Rows ``rows`` (F,) of (R, 4) or (R, 4K), each for its ground-truth class: (F, 4)."""
        box_dim = len(self.box2box_transform.weights)
        if values.shape[1] == box_dim:  # class-agnostic
            return values[rows]
        return values.reshape(-1, self.num_classes, box_dim)[rows, gt_classes[rows]]

    def _logits_for_the_log(self, logits: Tensor) -> Tensor:
        """Logits whose highest one is the predicted class, for detectron2's log of accuracies.

        Where nobody predicts the background it is what no class has a score of 0.5 for.
        """
        if getattr(self.cls_loss, "reads_background", True):
            return logits
        return torch.cat([logits[:, :-1], torch.zeros_like(logits[:, -1:])], dim=1)

    def predict_probs(self, predictions, proposals):
        """Scores (Ri, K+1) an image, as ``cls_loss`` makes them of the logits; detectron2's without one."""
        if self.cls_loss is None:
            return super().predict_probs(predictions, proposals)
        return cls_seat.class_scores(self.cls_loss, predictions[0]).split([len(p) for p in proposals])

    def predict_confidences(self, predictions, proposals: List[Instances]) -> Optional[Tuple[Tensor, ...]]:
        """How sure the boxes of :meth:`predict_boxes` are, (Ri, 1) or (Ri, K) an image; None where the box coder does
        not tell."""
        found = coder_seat.confidences(self.box2box_transform, predictions[1])
        return None if found is None else found.split([len(p) for p in proposals])

    def predict_variances(self, predictions, proposals: List[Instances]) -> Optional[Tuple[Tensor, ...]]:
        """Variances in square pixels of the corners of :meth:`predict_boxes`, (Ri, 4) or (Ri, 4K) an image; None where
        the box loss has none."""
        log_variances = log_variances_of(predictions)
        if log_variances is None:
            return None
        boxes = cat([p.proposal_boxes.tensor for p in proposals])
        settings = self.box_loss, self.box2box_transform
        variances = box_seat.corner_variances(*settings, predictions[1], log_variances, boxes)
        return variances.split([len(p) for p in proposals])


def _labels_of(proposals: List[Instances], like: Tensor) -> Tensor:
    """Classes (R,) of all images."""
    return cat([p.gt_classes for p in proposals]) if len(proposals) else like.new_empty(0).long()


def _boxes_of(proposals: List[Instances], like: Tensor) -> Tuple[Tensor, Tensor]:
    """Boxes and matched ground truth, (R, 4) each, of all images; background's is the box itself, where it has none."""
    if not len(proposals):
        return like.new_empty(0, 4), like.new_empty(0, 4)
    boxes = cat([p.proposal_boxes.tensor for p in proposals])
    return boxes, cat([(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals])
