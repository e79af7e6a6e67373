"""IoU-guided NMS: the box that is predicted to fit best is kept, with the best score of what it replaces.

    C: candidates of an image      S: those that are kept
"""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from ...utils.numbers import require
from ..registry import NMS_REGISTRY
from .seat import Candidates, Suppression

__all__ = ["IoUGuidedNMS"]


@NMS_REGISTRY.register()
class IoUGuidedNMS(Suppression):
    """IoU-guided NMS (Jiang et al., Acquisition of Localization Confidence, IoU-Net, ECCV 2018).

    NMS ranks the candidates of a class by their predicted IoU instead of by their score. A kept box gets the highest
    score of the boxes that it removed. It needs an IoU branch that predicts IoUs; scores are class scores then, and the
    branch's own product of score and IoU is not taken.

    Args:
        iou_power, cls_power: candidates are ranked by ``IoU ** iou_power * score ** cls_power``; both at least 0, not
            both 0. The paper's are 1 and 0. 0 and 1 are NMS by class score, to the bit.
        joint: see :class:`Suppression`.

    Raises:
        ValueError: for powers out of range.
    """

    wants_ious = True

    def __init__(self, iou_power: float = 1.0, cls_power: float = 0.0, joint: bool = False):
        super().__init__(joint)
        self.iou_power = require(self, "iou_power", iou_power, at_least=0)
        self.cls_power = require(self, "cls_power", cls_power, at_least=0)
        if iou_power == cls_power == 0:
            raise ValueError("IoUGuidedNMS: iou_power and cls_power are both 0, which ranks nothing; raise one of them")

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        keys = candidates.ious**self.iou_power * candidates.scores**self.cls_power
        kept = candidates.nms(nms_thresh, keys)
        of = _keeper(candidates, keys, kept, nms_thresh)
        best = candidates.scores.new_zeros(len(keys)).scatter_reduce(0, of, candidates.scores, "amax")
        return candidates.select(kept)._replace(scores=best[kept])


def _keeper(candidates: Candidates, keys: Tensor, kept: Tensor, nms_thresh: float) -> Tensor:
    """(C,): which kept candidate removed each candidate; a kept one is its own.

    It is the first in NMS's order, the one with the highest key, of those of its group that overlap it enough.
    """
    of, own = torch.arange(len(keys), device=keys.device), torch.zeros_like(keys, dtype=torch.bool)
    own[kept] = True
    for image in torch.unique(candidates.images).tolist():
        rows = (candidates.images == image).nonzero()[:, 0]
        kept_here = kept[candidates.images[kept] == image]  # the highest key first
        removes = pairwise_iou(Boxes(candidates.boxes[rows]), Boxes(candidates.boxes[kept_here])) > nms_thresh
        removes &= candidates.groups[rows][:, None] == candidates.groups[kept_here]
        first = removes.to(torch.uint8).argmax(dim=1)  # the first of equals
        taken = removes.any(dim=1) & ~own[rows]
        of[rows[taken]] = kept_here[first[taken]]
    return of
