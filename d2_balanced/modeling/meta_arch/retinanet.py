"""detectron2's RetinaNet with a pluggable classification loss and box loss (seat 5) and suppression (seat 8), and
losses that repeat to the bit.

    N: images      R: anchors of one image, all levels      K: classes
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch.nn import functional as F

from d2_balanced.modeling.balanced_keys import balanced_keys
from d2_balanced.modeling.box_losses.build import build_box_loss
from d2_balanced.modeling.cls_losses import FocalLoss
from d2_balanced.modeling.cls_losses.build import build_dense_cls_loss, check_focal_settings
from d2_balanced.modeling.dense_losses import (
    check_anchor_matcher,
    check_dense_box_loss,
    check_dense_cls_loss,
    dense_box_loss,
    dense_cls_loss,
)
from d2_balanced.modeling.registry import NMS_REGISTRY
from d2_balanced.modeling.spec import build_component
from d2_balanced.modeling.suppression import NMS
from d2_balanced.modeling.suppression.seat import Predicted, one_score_each
from d2_balanced.utils.errors import Refusal

from .levels import no_such_level

__all__ = ["BalancedRetinaNet"]

_FOCAL_DEFAULTS = {"alpha": 0.25, "gamma": 2.0}  # detectron2's


@META_ARCH_REGISTRY.register()
class BalancedRetinaNet(RetinaNet):
    """RetinaNet whose classification loss, box loss and suppression are components.

    State-dict keys, inference and, at the defaults, losses are those of detectron2's ``RetinaNet``. The focal loss is
    the eager one, because the scripted one gives other gradients on its first calls in a process than later, and then
    no resumed run equals one that never stopped. The trainer's checkpoint carries ``loss_normalizer``.

    Args:
        cls_loss: a loss of sigmoids, see ``cls_losses/seat.py``; None: the focal loss of ``focal_loss_alpha`` and
            ``focal_loss_gamma``. Scores are the sigmoids of the logits, whatever the loss.
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``, see ``box_losses/seat.py``; None keeps
            detectron2's own loss.
        nms: a component of ``NMS_REGISTRY``, which removes duplicates at inference; None: detectron2's NMS. The other
            arguments are ``RetinaNet``'s.

    Raises:
        Refusal: for a matcher or box loss that follows an R-CNN's proposals, a loss or suppression that wants what a
            RetinaNet does not predict, or a loss beside settings of detectron2's own that it ignores.
    """

    reads = ("MODEL.BALANCED.RETINANET",)  # settings that nobody else reads: config/refusals.py

    @configurable
    def __init__(
        self,
        *,
        cls_loss: Optional[Callable] = None,
        box_loss: Optional[Callable] = None,
        nms: Optional[Callable] = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_anchor_matcher(type(self).__name__, self.anchor_matcher)
        check_dense_box_loss(type(self).__name__, box_loss, self.box_reg_loss_type)
        check_dense_cls_loss(type(self).__name__, cls_loss, self.num_classes)
        check_focal_settings(
            type(self).__name__,
            cls_loss,
            {"alpha": self.focal_loss_alpha, "gamma": self.focal_loss_gamma},
            _FOCAL_DEFAULTS,
        )
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.nms = nms or NMS()
        _check_nms(type(self).__name__, self.nms)
        if hasattr(cls_loss, "adopt"):
            cls_loss.adopt(self.num_classes)

    @classmethod
    def from_config(cls, cfg):
        try:
            ret = super().from_config(cfg)
        except KeyError as error:
            if error.args[0] not in cfg.MODEL.RETINANET.IN_FEATURES:
                raise
            raise no_such_level(cfg, error.args[0]) from error
        ret["cls_loss"] = build_dense_cls_loss(
            balanced_keys(cfg).RETINANET.CLS_LOSS,
            "MODEL.BALANCED.RETINANET.CLS_LOSS",
            {"alpha": cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA, "gamma": cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA},
        )
        ret["box_loss"] = build_box_loss(
            balanced_keys(cfg).RETINANET.BOX_LOSS,
            "MODEL.BALANCED.RETINANET.BOX_LOSS",
            smooth_l1_beta=cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA,
            loss_type=cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE,
            loss_type_key="MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
        )
        ret["nms"] = build_component(
            NMS_REGISTRY, balanced_keys(cfg).RETINANET.NMS, "MODEL.BALANCED.RETINANET.NMS"
        )
        return ret

    def forward_inference(self, images, features, predictions) -> List[Instances]:
        """The detections of every image; see ``RetinaNet.forward_inference``."""
        if type(self.nms) is NMS:
            return super().forward_inference(images, features, predictions)
        logits, deltas = self._transpose_dense_predictions(predictions, [self.num_classes, 4])
        anchors = self.anchor_generator(features)
        found = []
        for i, size in enumerate(images.image_sizes):
            predictions_i = [x[i].sigmoid() for x in logits], [x[i] for x in deltas]
            limits = self.test_score_thresh, self.test_topk_candidates
            found.append(self._decode_multi_level_predictions(anchors, *predictions_i, *limits, size))
        scores = [one_score_each(image, self.num_classes, self.test_score_thresh) for image in found]
        predicted = Predicted(self.test_score_thresh, self.test_nms_thresh, self.max_detections_per_image)
        return self.nms([image.pred_boxes.tensor for image in found], scores, images.image_sizes, predicted)

    def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes) -> Dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg``, sums over the anchors divided by a moving average of their positives.

        A classification loss that is a mean of examples (``cls_losses/seat.py``) is divided by their number instead.

        Args:
            anchors: ``Boxes`` of every level.
            pred_logits, pred_anchor_deltas: of every level, (N, A_l, K) and (N, A_l, 4).
            gt_labels: of every image, (R,) in [-1, K]; -1 is ignored, K is background.
            gt_boxes: of every image, (R, 4) absolute XYXY pixels; read for positives only.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        mask = (labels >= 0) & (labels < self.num_classes)
        normalizer = self._update_normalizer(mask)
        positive = mask.flatten().nonzero()[:, 0]
        matched = anchors, self.box2box_transform, pred_anchor_deltas, gt_boxes, positive
        learn = self.training and torch.is_grad_enabled()
        loss_cls = self._cls_loss(cat(pred_logits, dim=1), labels, normalizer, matched, learn)
        loss_box_reg = dense_box_loss(
            *matched,
            self.box_loss,
            learn=learn,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {"loss_cls": loss_cls, "loss_box_reg": loss_box_reg / normalizer}

    def _update_normalizer(self, positive: Tensor) -> float:
        num_positives = positive.sum().item()  # detectron2 keeps this average on the host
        get_event_storage().put_scalar("num_pos_anchors", num_positives / len(positive))
        return self._ema_update("loss_normalizer", max(num_positives, 1), 100)

    def _cls_loss(self, logits: Tensor, labels: Tensor, normalizer: float, matched: tuple, learn: bool) -> Tensor:
        """Sum of the classification loss over the anchors that are not ignored, divided.

        Args:
            logits, labels: (N, R, K) and (N, R).
            normalizer: what the sum is divided by, if the loss is no mean of examples.
            matched, learn: the arguments of :func:`dense_cls_loss`.
        """
        valid, loss = labels >= 0, self.cls_loss
        if loss is None:
            settings = self.focal_loss_alpha, self.focal_loss_gamma
            return self._focal_loss(logits[valid], labels[valid], *settings) / normalizer
        if type(loss) is FocalLoss and loss.loss_weight == 1:  # detectron2's, to the last bit
            return self._focal_loss(logits[valid], labels[valid], loss.alpha, loss.gamma) / normalizer
        rows = valid.flatten().nonzero()[:, 0]
        if getattr(loss, "mean_of_examples", False):
            normalizer = max(len(rows) * self.num_classes, 1)
        logits = logits.flatten(0, 1)[rows]
        return dense_cls_loss(loss, logits, labels.flatten()[rows], rows, *matched, learn=learn) / normalizer

    def _focal_loss(self, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        target = F.one_hot(labels, num_classes=self.num_classes + 1)[:, :-1]  # background: all zeros
        return sigmoid_focal_loss(logits, target.to(logits.dtype), alpha=alpha, gamma=gamma, reduction="sum")


def _check_nms(owner: str, nms: Callable) -> None:
    """Raises ``Refusal`` for a suppression that wants what a RetinaNet does not have."""
    wants = {
        "the predicted IoUs of boxes": getattr(nms, "wants_ious", False),
        "the predicted variances of boxes": getattr(nms, "wants_variances", False),
        "parallel branches (joint)": getattr(nms, "joint", False),
    }
    for what in (what for what, wanted in wants.items() if wanted):
        name = f"nms={type(nms).__name__} (MODEL.BALANCED.RETINANET.NMS)"
        raise Refusal(name, owner, f"it wants {what}, which a RetinaNet has not", "take SoftNMS or BoxVoting")
