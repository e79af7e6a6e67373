"""Test-time augmentation: detectron2's, for boxes and masks, with all heads of this package.

Shape shorthand: R: merged detections; A: augmentations of an image.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA, GeneralizedRCNNWithTTA
from detectron2.structures import Instances
from torch import nn

from ..utils.errors import Refusal
from ..utils.numbers import require
from .image_rows import repeat
from .suppression import NMS
from .suppression.seat import Predicted, one_score_each
from .test_limits import limits_of

__all__ = ["AugmentedRCNN"]

_LOWEST_SCORE = 1e-8  # detectron2's: what is merged has exceeded the detector's own threshold
_NAME = "test-time augmentation (TEST.AUG.ENABLED, train.test_aug.enabled, --tta)"


class AugmentedRCNN(GeneralizedRCNNWithTTA):
    """A detector that looks at each image in several sizes, and mirrored, and merges what it finds.

    It is detectron2's ``GeneralizedRCNNWithTTA``, with equal detections, but it asks the model for what that one
    reads from a config. So it is the same for yacs and LazyConfig, and for detectors of one's own. Boxes of all
    augmentations go through one NMS, or the detector's own suppression, to which each augmentation is a detector, with
    the scores that the detector gives them: of a cascade, a loop or parallel branches the merged ones, with an IoU
    branch those times the predicted IoU. Masks are predicted on the merged boxes in every augmentation and averaged; so
    are the masks' own scores where a mask IoU head gives some.

    Args:
        model: a ``GeneralizedRCNN``; it is used, not copied.
        min_sizes: short sides of the images, in pixels, each an augmentation.
        max_size: limit of the long side.
        flip: look at each size mirrored, too.
        batch_size: augmented images that the model gets at once.

    Called with a list of the model's input dicts, it returns a list of ``{"instances": Instances}`` in the sizes of the
    images. Raises ``Refusal`` for models that detectron2's augmentation is not for, ``ValueError`` without a size.
    """

    def __init__(
        self, model: nn.Module, *, min_sizes: Sequence[int], max_size: int, flip: bool = True, batch_size: int = 3
    ):
        _require_supported(model)
        sizes = [require("AugmentedRCNN", "min_sizes", size, at_least=1, integer=True) for size in min_sizes]
        if not sizes:
            raise ValueError("AugmentedRCNN: min_sizes must have one size or more, got none")
        require("AugmentedRCNN", "max_size", max_size, at_least=1, integer=True)
        mapper = DatasetMapperTTA(min_sizes=sizes, max_size=max_size, flip=flip)
        super().__init__(_settings_of(model), model, mapper, batch_size)
        self.train(model.training)  # or whoever restores the mode that this had would change the model's

    @contextmanager
    def _turn_off_roi_heads(self, attrs):
        """detectron2's, but heads are on again after an error, too (out of memory): the model may be used on."""
        heads = self.model.roi_heads
        before = {name: getattr(heads, name) for name in attrs if hasattr(heads, name)}
        try:
            with super()._turn_off_roi_heads(attrs):
                yield
        finally:
            for name, value in before.items():
                setattr(heads, name, value)

    def _batch_inference(self, batched_inputs, detected_instances=None):
        outputs = super()._batch_inference(batched_inputs, detected_instances)
        if detected_instances is None:
            self._found = [len(output) for output in outputs]  # in every view
        return outputs

    def _merge_detections(self, all_boxes, all_scores, all_classes, shape_hw):
        nms = getattr(self.model.roi_heads, "nms", None)
        if nms is None or type(nms) is NMS:
            merged = super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        else:
            roi_heads, test = self.cfg.MODEL.ROI_HEADS, self.cfg.TEST
            nothing = all_boxes.new_zeros(0)  # detectron2 hands over lists of numbers
            found = Instances(shape_hw, scores=torch.stack(all_scores) if all_scores else nothing)
            found.pred_classes = torch.stack(all_classes) if all_classes else nothing.long()
            scores = one_score_each(found, roi_heads.NUM_CLASSES, _LOWEST_SCORE)
            views = repeat(torch.arange(len(self._found), device=all_boxes.device), self._found)
            limits = _LOWEST_SCORE, roi_heads.NMS_THRESH_TEST, test.DETECTIONS_PER_IMAGE
            merge = nms.of_views(len(self._found)) if hasattr(nms, "of_views") else nms
            merged = merge([all_boxes], [scores], [shape_hw], Predicted(*limits, sources=[views]))[0]
        self._merged = merged  # where the scores of the masks belong
        return merged

    def _reduce_pred_masks(self, outputs, tfms):
        """The mean of the A masks, (R, 1, h, w); gives the merged detections the mean ``mask_scores`` (R,)."""
        merged = self.__dict__.pop("_merged")
        if outputs[0].has("mask_scores"):
            merged.mask_scores = torch.stack([output.mask_scores for output in outputs]).mean(dim=0)
        return super()._reduce_pred_masks(outputs, tfms)


def _require_supported(model: nn.Module) -> None:
    if not isinstance(model, GeneralizedRCNN):
        name = f"{type(model).__name__} (MODEL.META_ARCHITECTURE, model._target_)"
        raise Refusal(_NAME, name, "detectron2's is for a GeneralizedRCNN", "leave it out")
    if getattr(model.roi_heads, "keypoint_on", False):
        raise Refusal(_NAME, "keypoints (MODEL.KEYPOINT_ON)", "detectron2's does not merge them", "leave it out")
    nms = getattr(model.roi_heads, "nms", None)
    if getattr(nms, "wants_ious", False) or getattr(nms, "wants_variances", False):
        reason = "what it goes by is not predicted for the boxes of several views"
        name = f"nms={type(nms).__name__} (MODEL.BALANCED.NMS)"
        raise Refusal(_NAME, name, reason, "take NMS, SoftNMS or BoxVoting")
    if model.proposal_generator is None:
        reason = "their boxes would have to be augmented, too, which detectron2's does not do"
        raise Refusal(_NAME, "given proposals (MODEL.LOAD_PROPOSALS)", reason, "leave it out")


def _settings_of(model: GeneralizedRCNN) -> CfgNode:
    """The part of a config that detectron2's class reads, as it is in the model."""
    heads, limits = model.roi_heads, limits_of(model)
    classes = {"NUM_CLASSES": heads.num_classes, "NMS_THRESH_TEST": limits.nms_thresh}
    return CfgNode({
        "MODEL": {
            "KEYPOINT_ON": False, "LOAD_PROPOSALS": False, "MASK_ON": bool(heads.mask_on), "ROI_HEADS": classes,
        },
        "TEST": {"DETECTIONS_PER_IMAGE": limits.detections},
    })  # fmt: skip
