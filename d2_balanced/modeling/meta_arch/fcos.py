"""detectron2's FCOS, for yacs configs too, with losses that repeat to the bit and images without objects.

    N: images      R: locations of one image, all levels      K: classes
"""

from __future__ import annotations

import math
from typing import Dict

import torch
from detectron2.config import configurable
from detectron2.modeling import build_backbone
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn
from torch.nn import functional as F

from .levels import shapes_of

__all__ = ["BalancedFCOS", "BalancedFCOSHead"]


class BalancedFCOSHead(FCOSHead):
    """``FCOSHead`` that can have GroupNorm, FCOS's normalisation: detectron2 0.6 tries a norm on one channel first."""

    def __init__(self, *, norm: str = "", **kwargs):
        super().__init__(norm=_group_norm if norm == "GN" else norm, **kwargs)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _nothing(objects: Instances) -> Instances:
    """One object without an area, which no location lies in: detectron2 0.6 cannot match with none."""
    boxes = Boxes(objects.gt_boxes.tensor.new_zeros(1, 4))
    return Instances(objects.image_size, gt_boxes=boxes, gt_classes=objects.gt_classes.new_zeros(1))


@META_ARCH_REGISTRY.register()
class BalancedFCOS(FCOS):
    """FCOS, which detectron2 has for LazyConfigs only.

    State-dict keys, inference and losses are those of detectron2's ``FCOS``; it has no seats for components. The focal
    loss is the eager one, as in ``BalancedRetinaNet``, and an image without objects is background, where detectron2's
    fails. From a yacs config it reads ``MODEL.RETINANET``: ``NUM_CLASSES``, ``IN_FEATURES``, ``NUM_CONVS``, ``NORM``,
    ``PRIOR_PROB``, ``FOCAL_LOSS_*`` and ``*_TEST``.

    Args:
        input_format: of the images, for those who draw them. The other arguments are ``FCOS``'s.
    """

    @configurable
    def __init__(self, *, input_format: str = "BGR", **kwargs):
        super().__init__(**kwargs)
        self.input_format = input_format

    @classmethod
    def from_config(cls, cfg):
        settings = cfg.MODEL.RETINANET
        backbone = build_backbone(cfg)
        shapes = shapes_of(backbone, cfg)
        head = BalancedFCOSHead(
            input_shape=shapes,
            num_classes=settings.NUM_CLASSES,
            conv_dims=[shapes[0].channels] * settings.NUM_CONVS,
            norm=settings.NORM,
            prior_prob=settings.PRIOR_PROB,
        )
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": settings.IN_FEATURES,
            "num_classes": settings.NUM_CLASSES,
            "focal_loss_alpha": settings.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": settings.FOCAL_LOSS_GAMMA,
            "test_score_thresh": settings.SCORE_THRESH_TEST,
            "test_topk_candidates": settings.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": settings.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
        }

    def label_anchors(self, anchors, gt_instances):
        """Class and box of every location of every image, (R,) and (R, 4); K and anything for the background.

        Args:
            anchors: ``Boxes`` of every level.
            gt_instances: objects of every image.

        Returns the boxes as detectron2 does: 0.6 gives ``Boxes``, main tensors.
        """
        gt_instances = [objects if len(objects) else _nothing(objects) for objects in gt_instances]
        return super().label_anchors(anchors, gt_instances)

    def losses(
        self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, pred_centerness
    ) -> Dict[str, Tensor]:
        """``loss_fcos_cls``, ``loss_fcos_loc`` and ``loss_fcos_ctr``: sums, over a moving average of the positives.

        Args:
            anchors: ``Boxes`` of every level.
            pred_logits, pred_anchor_deltas, pred_centerness: of every level, (N, R_l, K), (N, R_l, 4), (N, R_l, 1).
            gt_labels, gt_boxes: of :meth:`label_anchors`.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        positive = labels != self.num_classes
        number = positive.sum().item()  # detectron2 keeps this average on the host
        get_event_storage().put_scalar("num_pos_anchors", number / len(labels))
        normalizer = self._ema_update("loss_normalizer", max(number, 1), 300)
        logits = torch.cat(pred_logits, dim=1)
        target = F.one_hot(labels, num_classes=self.num_classes + 1)[:, :, :-1].to(logits.dtype)
        loss_cls = sigmoid_focal_loss(
            logits, target, alpha=self.focal_loss_alpha, gamma=self.focal_loss_gamma, reduction="sum"
        )
        loss_loc = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            [getattr(boxes, "tensor", boxes) for boxes in gt_boxes],
            positive,
            box_reg_loss_type="giou",
        )
        centerness = torch.cat(pred_centerness, dim=1).squeeze(dim=2)
        loss_ctr = F.binary_cross_entropy_with_logits(
            centerness[positive], self.compute_ctrness_targets(anchors, gt_boxes)[positive], reduction="sum"
        )
        losses = {"loss_fcos_cls": loss_cls, "loss_fcos_loc": loss_loc, "loss_fcos_ctr": loss_ctr}
        return {name: loss / normalizer for name, loss in losses.items()}
