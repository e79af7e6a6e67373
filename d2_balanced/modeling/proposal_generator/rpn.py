"""detectron2's RPN with a pluggable sampler (seat 3) and box loss (seat 5).

    N: images      R: anchors of one image, all levels
"""

from __future__ import annotations

from typing import Callable, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from d2_balanced.modeling.box_predictor import build_box_loss, check_smooth_l1_beta
from d2_balanced.modeling.dense_box_loss import check_anchor_matcher, check_dense_box_loss, dense_box_loss
from d2_balanced.modeling.ignore_regions import ignore_regions_of, in_ignore_region
from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.modeling.sampling import RandomSampler
from d2_balanced.modeling.spec import build_component

__all__ = ["BalancedRPN"]

_BACKGROUND = 0


@PROPOSAL_GENERATOR_REGISTRY.register()
class BalancedRPN(RPN):
    """Region proposal network whose minibatch sampler and box loss are components.

    With the defaults, losses, gradients, proposals and the use of torch's generator are those of detectron2's ``RPN``.

    Args:
        sampler: a :class:`ProposalSampler`, or any callable like it; None: :class:`RandomSampler`. Its ``neg_pos_ub``
            bounds the negatives for each positive (Libra R-CNN's released RPN: 5).
        box_loss: callable ``(pred (F, 4), target (F, 4)) -> (F, 4)``; None keeps detectron2's own loss. The other
            arguments are ``RPN``'s.

    Raises:
        ValueError: for a sampler that repeats positives, for a matcher or box loss that follows an R-CNN's proposals,
            or a box loss beside a ``box_reg_loss_type`` other than smooth_l1 or a ``smooth_l1_beta`` that it ignores.
    """

    @configurable
    def __init__(self, *, sampler: Optional[Callable] = None, box_loss: Optional[Callable] = None, **kwargs):
        super().__init__(**kwargs)
        if getattr(sampler, "repeats_positives", False):
            raise ValueError(
                f"{type(self).__name__}: sampler={sampler} repeats positives, but an RPN can take an anchor only once; "
                "choose another sampler here, or use this one in the ROI heads"
            )
        check_anchor_matcher(type(self).__name__, self.anchor_matcher)
        check_dense_box_loss(type(self).__name__, box_loss, self.box_reg_loss_type)
        check_smooth_l1_beta(type(self).__name__, box_loss, self.smooth_l1_beta)
        self.sampler = RandomSampler() if sampler is None else sampler
        self.box_loss = box_loss

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        rpn = cfg.MODEL.BALANCED.RPN
        ret["sampler"] = build_component(PROPOSAL_SAMPLER_REGISTRY, rpn.SAMPLER, "MODEL.BALANCED.RPN.SAMPLER")
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
        labels, matched_boxes = [], []
        for gt in gt_instances:
            matched_idxs, candidates, ious = self._match(gt.gt_boxes, anchors)
            if self.anchor_boundary_thresh >= 0:
                candidates[~anchors.inside_box(gt.image_size, self.anchor_boundary_thresh)] = -1
            regions = ignore_regions_of(gt)
            if regions is not None:
                ignored = retry_if_cuda_oom(in_ignore_region)(anchors, regions).to(candidates.device)
                candidates.masked_fill_((candidates == _BACKGROUND) & ignored, -1)
            labels.append(self._sample(candidates, ious, matched_idxs))
            has_boxes = len(gt.gt_boxes) > 0
            matched_boxes.append(gt.gt_boxes.tensor[matched_idxs] if has_boxes else torch.zeros_like(anchors.tensor))
        return labels, matched_boxes

    def _match(self, gt_boxes: Boxes, anchors: Boxes) -> Tuple[Tensor, Tensor, Tensor]:
        """Index of the matched box, label before sampling and IoU with the matched box, each (R,), of the anchors."""
        # The matrix is (boxes x anchors): it may have to be computed on the CPU. What comes back is small.
        results = retry_if_cuda_oom(self._match_by_iou)(gt_boxes, anchors)
        return tuple(result.to(anchors.device) for result in results)

    def _match_by_iou(self, gt_boxes: Boxes, anchors: Boxes) -> Tuple[Tensor, Tensor, Tensor]:
        match_quality_matrix = pairwise_iou(gt_boxes, anchors)
        matched_idxs, labels = self.anchor_matcher(match_quality_matrix)
        if len(gt_boxes) == 0:
            return matched_idxs, labels, match_quality_matrix.new_zeros(len(anchors))
        return matched_idxs, labels, match_quality_matrix.gather(0, matched_idxs[None])[0]

    def _sample(self, labels: Tensor, ious: Tensor, matched_idxs: Tensor) -> Tensor:
        """The labels with -1 for every anchor that is not in the minibatch."""
        pos_idx, neg_idx = self.sampler(
            labels, ious, matched_idxs, self.batch_size_per_image, self.positive_fraction, _BACKGROUND
        )
        sampled = torch.full_like(labels, -1)
        sampled[pos_idx] = 1
        sampled[neg_idx] = _BACKGROUND
        return sampled

    @torch.jit.unused
    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """detectron2's losses; ``loss_rpn_loc`` is that of ``box_loss`` if there is one, equally normalised."""
        losses = super().losses(anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        if self.box_loss is not None:
            # Replaced, not computed here from the start: a later detectron2 may add to its losses.
            positive = torch.stack(gt_labels) == 1
            transform = self.box2box_transform
            loss = dense_box_loss(self.box_loss, anchors, transform, pred_anchor_deltas, gt_boxes, positive)
            normalizer = self.batch_size_per_image * len(gt_labels)
            losses["loss_rpn_loc"] = loss / normalizer * self.loss_weight.get("loss_rpn_loc", 1.0)
        return losses
