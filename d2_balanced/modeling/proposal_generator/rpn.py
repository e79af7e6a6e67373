"""detectron2's RPN with a pluggable sampler (seat 3), classification loss and box loss (seat 5).

    N: images      R: anchors of one image, all levels
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Callable, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from d2_balanced.modeling.balanced_keys import balanced_keys
from d2_balanced.modeling.box_losses.build import build_box_loss, check_smooth_l1_beta
from d2_balanced.modeling.cls_losses import CrossEntropy
from d2_balanced.modeling.cls_losses.build import build_dense_cls_loss
from d2_balanced.modeling.dense_losses import (
    check_anchor_matcher,
    check_dense_box_loss,
    check_dense_cls_loss,
    dense_box_loss,
    dense_cls_loss,
)
from d2_balanced.modeling.ignore_regions import ignore_regions_of, in_ignore_region
from d2_balanced.modeling.image_rows import selected_rows
from d2_balanced.modeling.matching import match_images
from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.modeling.sampling import RandomSampler, sample_images
from d2_balanced.modeling.spec import build_component
from d2_balanced.utils.errors import Refusal

from .top_proposals import top_candidates, top_proposals

__all__ = ["BalancedRPN", "NORMALIZERS"]

NORMALIZERS = ("batch_size", "sampled")
_BACKGROUND = 0
_OBJECT_CLASSES = 1  # any object


@PROPOSAL_GENERATOR_REGISTRY.register()
class BalancedRPN(RPN):
    """Region proposal network whose minibatch sampler, classification loss and box loss are components.

    With the defaults, losses, gradients, proposals and the use of torch's generator are those of detectron2's ``RPN``.

    Args:
        sampler: a :class:`ProposalSampler`, or any callable like it; None: :class:`RandomSampler`. Its ``neg_pos_ub``
            bounds the negatives for each positive (Libra R-CNN's released RPN: 5).
        cls_loss: loss of the objectness as that of one class, see ``cls_losses/seat.py``; None: detectron2's, which is
            :class:`CrossEntropy` of sigmoids.
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``, see ``box_losses/seat.py``; None keeps
            detectron2's own loss. The other arguments are ``RPN``'s.
        normalizer: what the sums of both losses are divided by. "batch_size": ``batch_size_per_image`` times N, as in
            detectron2, whose samplers fill the minibatch; "sampled": the anchors that were sampled, as in Libra R-CNN's
            release; None: "sampled" for a sampler with a ``neg_pos_ub``, "batch_size" for all others.

    Raises:
        ValueError: for another normalizer.
        Refusal: for a sampler that repeats positives, for a matcher or box loss that follows an R-CNN's proposals,
            a loss that wants what an RPN does not predict, or a box loss beside a ``box_reg_loss_type`` other than
            smooth_l1 or a ``smooth_l1_beta`` that it ignores.
    """

    reads = ("MODEL.BALANCED.RPN", "INPUT.IGNORE_REGIONS")  # settings that nobody else reads: config/refusals.py

    @configurable
    def __init__(
        self,
        *,
        sampler: Optional[Callable] = None,
        cls_loss: Optional[Callable] = None,
        box_loss: Optional[Callable] = None,
        normalizer: Optional[str] = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if getattr(sampler, "repeats_positives", False):
            raise Refusal(
                f"sampler={sampler}", type(self).__name__, "the sampler repeats positives, and an RPN cannot",
                "choose another sampler here, or use this one in the ROI heads",
            )  # fmt: skip
        check_anchor_matcher(type(self).__name__, self.anchor_matcher)
        check_dense_box_loss(type(self).__name__, box_loss, self.box_reg_loss_type)
        check_smooth_l1_beta(type(self).__name__, box_loss, self.smooth_l1_beta)
        check_dense_cls_loss(type(self).__name__, cls_loss, _OBJECT_CLASSES)
        self.sampler = RandomSampler() if sampler is None else sampler
        self.cls_loss = CrossEntropy(form="sigmoid") if cls_loss is None else cls_loss
        self.box_loss = box_loss
        self.normalizer = self._normalizer(normalizer)
        if hasattr(cls_loss, "adopt"):
            cls_loss.adopt(_OBJECT_CLASSES)

    def _normalizer(self, name):
        if name not in (None, *NORMALIZERS):
            raise ValueError(f"{type(self).__name__}: normalizer must be one of {', '.join(NORMALIZERS)}; got {name!r}")
        return name or ("sampled" if getattr(self.sampler, "neg_pos_ub", -1) != -1 else "batch_size")

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        rpn = balanced_keys(cfg).RPN
        ret["normalizer"] = rpn.NORMALIZER or None
        ret["sampler"] = build_component(PROPOSAL_SAMPLER_REGISTRY, rpn.SAMPLER, "MODEL.BALANCED.RPN.SAMPLER")
        ret["cls_loss"] = build_dense_cls_loss(rpn.CLS_LOSS, "MODEL.BALANCED.RPN.CLS_LOSS")
        ret["box_loss"] = build_box_loss(
            rpn.BOX_LOSS,
            "MODEL.BALANCED.RPN.BOX_LOSS",
            smooth_l1_beta=cfg.MODEL.RPN.SMOOTH_L1_BETA,
            loss_type=cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE,
            loss_type_key="MODEL.RPN.BBOX_REG_LOSS_TYPE",
        )
        return ret

    @torch.jit.unused
    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: List[Boxes], gt_instances: List[Instances]
    ) -> Tuple[List[Tensor], List[Tensor]]:
        """Per image the labels (R,) int8 of the anchors (1 positive, 0 negative, -1 not sampled) and their matched
        boxes (R, 4), which mean something for positives only.

        Args:
            anchors: ``Boxes`` of every level.
            gt_instances: ground truth of every image; without boxes all anchors are negatives, but for those in its
                ignore regions (``ignore_regions.py``), which are -1.
        """
        anchors = Boxes.cat(anchors)
        matches = match_images(self.anchor_matcher, [gt.gt_boxes for gt in gt_instances], [anchors] * len(gt_instances))
        idxs, ious, labels = (each.view(len(gt_instances), -1) for each in matches)
        for image_labels, gt in zip(labels, gt_instances):
            self._ignore(image_labels, anchors, gt)
        settings = (self.batch_size_per_image, self.positive_fraction, _BACKGROUND)
        sampled = torch.full_like(labels, -1)
        for image, (positive, negative) in zip(sampled, sample_images(self.sampler, labels, ious, idxs, *settings)):
            image.index_fill_(0, positive, 1).index_fill_(0, negative, _BACKGROUND)
        return list(sampled), [_matched_boxes(gt.gt_boxes.tensor, image_idxs) for gt, image_idxs in zip(gt_instances, idxs)]

    def _ignore(self, labels: Tensor, anchors: Boxes, gt: Instances) -> None:
        """Label -1, in place, anchors outside of the image, where that is asked for, and background in its ignore regions."""
        if self.anchor_boundary_thresh >= 0:
            labels.masked_fill_(~anchors.inside_box(gt.image_size, self.anchor_boundary_thresh), -1)
        regions = ignore_regions_of(gt)
        if regions is not None:
            ignored = retry_if_cuda_oom(in_ignore_region)(anchors, regions).to(labels.device)
            labels.masked_fill_((labels == _BACKGROUND) & ignored, -1)

    @torch.jit.unused
    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """detectron2's losses, with ``cls_loss``, and with ``box_loss`` if there is one; see ``RPN.losses``."""
        labels = torch.cat(gt_labels)
        sampled, counts = selected_rows(torch.cat([labels >= 0, labels == 1]), [len(labels)] * 2)
        sampled, positive = sampled.split(counts)
        positive = positive - len(labels)
        num_images = len(gt_labels)
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", len(positive) / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (len(sampled) - len(positive)) / num_images)
        matched = anchors, self.box2box_transform, pred_anchor_deltas, gt_boxes, positive
        learn = self.training and torch.is_grad_enabled()
        objectness = cat(pred_objectness_logits, dim=1).flatten()[sampled][:, None]
        classes = 1 - labels[sampled].long()  # object: class 0; background: 1
        objectness_loss = dense_cls_loss(self.cls_loss, objectness, classes, sampled, *matched, learn=learn)
        box_loss = dense_box_loss(
            *matched,
            self.box_loss,
            learn=learn,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        num_sampled = max(len(sampled), 1)
        normalizer = num_sampled if self.normalizer == "sampled" else self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": objectness_loss / normalizer, "loss_rpn_loc": box_loss / normalizer}
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes) -> List[Instances]:
        """detectron2's proposals; see ``RPN.predict_proposals``."""
        if torch.jit.is_tracing():
            return super().predict_proposals(anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes)
        num_before, num_after = self.pre_nms_topk[self.training], self.post_nms_topk[self.training]
        with torch.no_grad():
            candidates = top_candidates(
                anchors, pred_objectness_logits, pred_anchor_deltas, self.box2box_transform, num_before
            )
            return top_proposals(
                candidates, image_sizes, self.nms_thresh, num_after, self.min_box_size, self.training
            )

    def __prepare_scriptable__(self) -> RPN:
        """What ``torch.jit.script`` compiles, for inference: detectron2's ``RPN`` of these weights and settings."""
        plain = copy.copy(self)
        plain.__class__ = RPN
        losses = ("cls_loss", "box_loss")  # components, which inference does not need
        plain._modules = OrderedDict((name, part) for name, part in self._modules.items() if name not in losses)
        return plain


def _matched_boxes(gt_boxes: Tensor, idxs: Tensor) -> Tensor:
    return gt_boxes[idxs] if len(gt_boxes) else gt_boxes.new_zeros(len(idxs), 4)
