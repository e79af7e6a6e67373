"""The mask axis: what the mask head trains on, and how its stages' masks become one.

Shape shorthand: R: RoIs of the minibatch; F: its foreground; K: foreground classes; h, w: size of a mask.
"""

import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from torch import nn

from ...utils.errors import Refusal
from ..registry import MASK_BRANCH_REGISTRY
from .labeling import foreground_of
from .mask_scoring import masks_of_classes, score_masks

__all__ = ["FirstStageMasks", "InterleavedMasks"]

SCORED = ("last", "mean")


@MASK_BRANCH_REGISTRY.register()
class FirstStageMasks:
    """detectron2's masks: one mask head, trained on the positives of the box heads' first stage.

    With a mask IoU head they are scored by it, too, and the head trains on the same positives. The methods of a forward
    pass are given the parts that they work with, :class:`~.mask_parts.MaskParts`.
    """

    refines_last_stage = False
    """Whether the boxes that the last training stage predicts are needed."""

    def check(self, heads):
        """Raise ``Refusal`` if this does not go with these ``BalancedROIHeads``."""
        if not heads.mask_on:
            return
        mask_head = _named(type(heads.mask_head))
        if heads.mask_iou_head is not None and not hasattr(heads.mask_head, "layers"):
            remedy = "take one with them, as MaskRCNNConvUpsampleHead"
            raise Refusal("a mask IoU head (MODEL.BALANCED.MASK_IOU_HEAD)", mask_head, "that has no `layers`", remedy)
        if hasattr(heads.mask_head, "previous"):
            reason = "there is one stage of masks, and the mask head takes the features of a stage before"
            raise Refusal(mask_head, self._name, reason, "take InterleavedMasks, or another mask head")

    def check_head(self, mask_head_class):
        """Raise ``Refusal`` if masks cannot be predicted with mask heads of this class."""

    @property
    def _name(self):
        return f"{type(self).__name__} (MODEL.BALANCED.MASKS)"

    def build_heads(self, build_head, stages):
        """The mask head, or a list with one for every stage, from what ``build_head`` makes."""
        return build_head()

    def stage_losses(self, parts, refined, stage):
        """Losses of one stage, from the proposals that it refined its samples to: none. A dict of scalar tensors."""
        return {}

    def losses(self, parts, samples):
        """Losses from the samples of the first stage, after all stages. A dict of scalar tensors."""
        foreground = foreground_of(samples, parts.num_classes)
        pooled = parts.pool([image.proposal_boxes for image in foreground])
        if parts.mask_iou_head is None:
            return parts.mask_head(pooled, foreground)
        logits = parts.mask_head.layers(pooled)
        return parts.losses(parts.mask_head, pooled, logits, foreground, scored=logits)

    def predict(self, parts, instances):
        """The instances, which have ``pred_boxes``, with ``pred_masks`` (R, 1, h, w)."""
        pooled = parts.pool([image.pred_boxes for image in instances])
        if parts.mask_iou_head is None:
            return parts.mask_head(pooled, instances)
        mask_rcnn_inference(parts.mask_head.layers(pooled), instances)
        score_masks(parts.mask_iou_head, pooled, instances)
        return instances


@MASK_BRANCH_REGISTRY.register()
class InterleavedMasks(FirstStageMasks):
    """Masks in every stage, each trained on the boxes that the stage has just refined (R3-CNN, HTC without semantics).

    The refined boxes of the main branch are matched and sampled at the stage's threshold, and their positives train the
    stage's mask head. With ``information_flow`` a stage's mask features are computed from those of the stages before,
    on the same RoIs, in training as at inference. At inference the masks of all stages are predicted on the final boxes
    and their probabilities averaged. The mask head (``FlowMaskHead``) is one for all stages, or a list with one each.

    A mask IoU head trains in the last stage only, so its loss has no stage's weight.

    Args:
        information_flow: pass mask features from stage to stage.
        scored: the mask that a mask IoU head trains on, and is asked about at inference: "last", that of the last stage
            (as in R3-CNN's release), or "mean", the mean of all stages' probabilities, which is the mask that is given.

    Raises ``ValueError`` for another mask to score; the ROI heads, ``Refusal`` for "mean" without a mask IoU head.
    """

    refines_last_stage = True

    def __init__(self, *, information_flow=True, scored="last"):
        if scored not in SCORED:
            raise ValueError(f"InterleavedMasks: scored must be one of {', '.join(SCORED)}, got {scored!r}")
        self.information_flow = information_flow
        self.scored = scored

    def build_heads(self, build_head, stages):
        """As above; ``build_head`` makes a ``FlowMaskHead`` from its keyword arguments."""
        mask_heads = [build_head(takes_previous=takes) for takes in self._takes_previous(stages)]
        return mask_heads if len(mask_heads) > 1 else mask_heads[0]

    def _takes_previous(self, stages):
        """For every mask head, whether it gets features of the stage before."""
        flows = self._flows(stages)
        return [flows] if stages.shared_head else [flows and k > 0 for k in range(stages.num_train)]

    def _flows(self, stages):
        """Whether features flow: not after training with one stage, even if there are more at inference, since what
        passes them on has never been trained."""
        return self.information_flow and stages.num_train > 1

    def check(self, heads):
        if not heads.mask_on:
            raise without_masks(self._name)
        mask_heads = list(heads.mask_head) if isinstance(heads.mask_head, nn.ModuleList) else [heads.mask_head]
        for mask_head in mask_heads:
            self.check_head(type(mask_head))
        wanted = None if heads.stages.shared_head else heads.stages.num_train
        have = len(mask_heads) if isinstance(heads.mask_head, nn.ModuleList) else None
        if have != wanted and not (wanted == 1 and have is None):
            need = "one mask head" if wanted is None else f"{wanted} mask heads, one a stage"
            raise Refusal(f"{have or 1} mask head(s)", f"stages={type(heads.stages).__name__}", f"they need {need}")
        self._check_flow(heads.stages, mask_heads)
        if self.scored != SCORED[0] and heads.mask_iou_head is None:
            scored = f"scored={self.scored} (MODEL.BALANCED.MASKS.SCORED)"
            head = "mask_iou_head=None (MODEL.BALANCED.MASK_IOU_HEAD)"
            raise Refusal(scored, head, "nothing scores the masks", "choose a head, or leave it out")
        if heads.train_on_pred_boxes and not heads.keypoint_on:
            option = "train_on_pred_boxes (MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES)"
            raise Refusal(option, self._name, "the masks train on refined boxes anyway")

    def check_head(self, mask_head_class):
        if not hasattr(mask_head_class, "features"):
            raise Refusal(_named(mask_head_class), self._name, "that head passes nothing on", "take a FlowMaskHead")

    def _check_flow(self, stages, mask_heads):
        takes, wanted = [hasattr(head, "previous") for head in mask_heads], self._takes_previous(stages)
        if takes != wanted:
            flow = f"information_flow={self.information_flow} and {stages.num_train} training stage(s)"
            remedy = f"takes_previous must be {wanted} for the mask head of every stage"
            raise Refusal(f"takes_previous={takes}", flow, "there would be convolutions too many, or missing", remedy)

    def stage_losses(self, parts, refined, stage):
        """``loss_mask`` of a stage; a 0 connected to the graph without foreground."""
        foreground = foreground_of(parts.label_and_sample(refined, stage), parts.num_classes)
        pooled = parts.pool([image.proposal_boxes for image in foreground])
        features = self._all_features(parts, pooled, stage + 1)
        mask_head = parts.head(stage)
        logits = scored = mask_head.predict(features[-1])
        if stage < parts.stages.num_train - 1 or parts.mask_iou_head is None:
            scored = None
        elif self.scored == "mean":
            earlier = [parts.head(k).predict(each) for k, each in enumerate(features[:-1])]
            scored = _mean_as_logits([*earlier, logits])
        return parts.losses(mask_head, pooled, logits, foreground, scored)

    def losses(self, parts, samples):
        """Every stage has had its masks: {}."""
        return {}

    def predict(self, parts, instances):
        pooled = parts.pool([image.pred_boxes for image in instances])
        features = self._all_features(parts, pooled, parts.stages.num_test)
        logits = [parts.head(k).predict(each) for k, each in enumerate(features)]
        mask_rcnn_inference(_mean_as_logits(logits), instances)  # it takes logits, and picks the predicted class
        if parts.mask_iou_head is not None:
            classes = torch.cat([image.pred_classes for image in instances])
            masks = masks_of_classes(logits[-1], classes).sigmoid() if self.scored == "last" else None
            score_masks(parts.mask_iou_head, pooled, instances, masks)
        return instances

    def _all_features(self, parts, pooled, num_stages):
        """Mask features of the stages 0 .. num_stages - 1 on the same RoIs, each from the one before."""
        chain = [None]
        for k in range(num_stages):
            previous = chain[-1] if self._flows(parts.stages) else None
            chain.append(parts.head(k).features(pooled, previous))
        return chain[1:]


def _mean_as_logits(stages):
    """Logits (R, K, S, S) of the mean probability of several stages' logits."""
    return torch.logit(torch.stack([logits.sigmoid() for logits in stages]).mean(dim=0), eps=1e-6)


def without_masks(setting):
    """The ``Refusal`` of a setting that needs masks where there are none."""
    return Refusal(setting, "MODEL.MASK_ON: False", "there are no masks", "set it to True, or leave the other out")


def _named(mask_head_class):
    return f"{mask_head_class.__name__} (MODEL.ROI_MASK_HEAD.NAME)"
