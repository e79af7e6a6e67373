"""detectron2's RetinaNet with a pluggable box loss (seat 5) and losses that repeat to the bit.

    N: images      R: anchors of one image, all levels      K: classes
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch.nn import functional as F

from d2_balanced.modeling.box_predictor import build_box_loss
from d2_balanced.modeling.dense_box_loss import check_anchor_matcher, check_dense_box_loss, dense_box_loss
from d2_balanced.utils.errors import Refusal

__all__ = ["BalancedRetinaNet"]


@META_ARCH_REGISTRY.register()
class BalancedRetinaNet(RetinaNet):
    """RetinaNet whose box loss is a component.

    State-dict keys, inference and, at the defaults, losses are those of detectron2's ``RetinaNet``. The focal loss is
    the eager one, because the scripted one gives other gradients on its first calls in a process than later, and then
    no resumed run equals one that never stopped. The trainer's checkpoint carries ``loss_normalizer``.

    Args:
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``; None keeps detectron2's own loss. The other
            arguments are ``RetinaNet``'s.

    Raises:
        Refusal: for a matcher or box loss that follows an R-CNN's proposals, or a box loss beside a
            ``box_reg_loss_type`` other than smooth_l1.
    """

    reads = ("MODEL.BALANCED.RETINANET",)  # settings that nobody else reads: config/refusals.py

    @configurable
    def __init__(self, *, box_loss: Optional[Callable] = None, **kwargs):
        super().__init__(**kwargs)
        check_anchor_matcher(type(self).__name__, self.anchor_matcher)
        check_dense_box_loss(type(self).__name__, box_loss, self.box_reg_loss_type)
        self.box_loss = box_loss

    @classmethod
    def from_config(cls, cfg):
        try:
            ret = super().from_config(cfg)
        except KeyError as error:
            if error.args[0] not in cfg.MODEL.RETINANET.IN_FEATURES:
                raise
            raise Refusal(
                f"MODEL.RETINANET.IN_FEATURES: {error.args[0]}", f"MODEL.BACKBONE.NAME: {cfg.MODEL.BACKBONE.NAME}",
                "the backbone has no such level", "take a RetinaNet's (build_retinanet_...), which has p3 to p7",
            ) from error  # fmt: skip
        ret["box_loss"] = build_box_loss(
            cfg.MODEL.BALANCED.RETINANET.BOX_LOSS,
            "MODEL.BALANCED.RETINANET.BOX_LOSS",
            smooth_l1_beta=cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA,
            loss_type=cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE,
            loss_type_key="MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
        )
        return ret

    def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes) -> Dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg``, sums over the anchors divided by a moving average of their positives.

        Args:
            anchors: ``Boxes`` of every level.
            pred_logits, pred_anchor_deltas: of every level, (N, A_l, K) and (N, A_l, 4).
            gt_labels: of every image, (R,) in [-1, K]; -1 is ignored, K is background.
            gt_boxes: of every image, (R, 4) absolute XYXY pixels; read for positives only.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        positive = (labels >= 0) & (labels < self.num_classes)
        normalizer = self._update_normalizer(positive)
        return {
            "loss_cls": self._focal_loss(cat(pred_logits, dim=1), labels) / normalizer,
            "loss_box_reg": self._box_loss(anchors, pred_anchor_deltas, gt_boxes, positive) / normalizer,
        }

    def _update_normalizer(self, positive: Tensor) -> float:
        num_positives = positive.sum().item()  # detectron2 keeps this average on the host
        get_event_storage().put_scalar("num_pos_anchors", num_positives / len(positive))
        return self._ema_update("loss_normalizer", max(num_positives, 1), 100)

    def _focal_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the focal loss over the anchors that are not ignored; ``logits`` (N, R, K), ``labels`` (N, R)."""
        valid = labels >= 0
        target = F.one_hot(labels[valid], num_classes=self.num_classes + 1)[:, :-1]  # background: all zeros
        return sigmoid_focal_loss(
            logits[valid],
            target.to(logits.dtype),
            alpha=self.focal_loss_alpha,
            gamma=self.focal_loss_gamma,
            reduction="sum",
        )

    def _box_loss(self, anchors: list, pred_deltas: List[Tensor], gt_boxes: List[Tensor], positive: Tensor) -> Tensor:
        """Sum of the box loss over the positive anchors."""
        return dense_box_loss(
            anchors,
            self.box2box_transform,
            pred_deltas,
            gt_boxes,
            positive.flatten().nonzero()[:, 0],
            self.box_loss,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
