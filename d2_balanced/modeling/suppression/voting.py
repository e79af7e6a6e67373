"""Box voting: the kept box moves to a mean of the boxes that overlap it.

    S: kept boxes of an image      C: all candidates of it
"""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, pairwise_iou

from ...utils.numbers import require
from ..registry import NMS_REGISTRY
from .seat import Candidates
from .soft_nms import SoftNMS

__all__ = ["BoxVoting", "VarianceVoting"]

_SMALLEST_VARIANCE = 1e-6  # square pixels; its inverse is to stay finite


@NMS_REGISTRY.register()
class BoxVoting(SoftNMS):
    """Every kept box becomes the weighted mean of the boxes of its class that overlap it at all, itself included.

    The weight of a box with IoU o is ``exp(-(1 - o)^2 / vote_sigma)``: variance voting (:class:`VarianceVoting`) with
    equal variances. Scores stay. What is kept is chosen by NMS, or by Soft-NMS.

    Args:
        vote_sigma: sigma_t of the paper, above 0; towards 0 no box moves, to the bit.
        method, sigma, min_score: which boxes are kept, see :class:`SoftNMS`; "hard" is NMS.
        joint: see :class:`Suppression`.

    Raises:
        ValueError: for another method, or a number out of range.
    """

    def __init__(
        self,
        vote_sigma: float = 0.02,
        method: str = "hard",
        sigma: float = 0.5,
        min_score: float = 0.001,
        joint: bool = False,
    ):
        super().__init__(method, sigma, min_score, joint)
        self.vote_sigma = require(self, "vote_sigma", vote_sigma, above=0)

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        if self.method == "hard":
            return candidates.select(candidates.nms(nms_thresh))
        return super().suppress(candidates, nms_thresh)

    def refine(self, kept: Candidates, candidates: Candidates) -> Candidates:
        ious = pairwise_iou(Boxes(kept.boxes), Boxes(candidates.boxes))
        itself = kept.rows[:, None] == candidates.rows
        votes = torch.exp(-((1 - ious) ** 2) / self.vote_sigma).masked_fill(itself, 1.0)
        votes = votes * ((kept.groups[:, None] == candidates.groups) & ((ious > 0) | itself))
        weights = votes[..., None] / self._variances(candidates)  # (S, C, 4)
        # As a mean of moves: a box that nobody votes against stays where it is, to the bit.
        moves = candidates.boxes - kept.boxes[:, None]
        total = weights.sum(dim=1).clamp(min=torch.finfo(weights.dtype).tiny)
        return kept._replace(boxes=kept.boxes + (weights * moves).sum(dim=1) / total)

    def _variances(self, candidates: Candidates):
        """(C, 4), or what stands for it."""
        return torch.ones_like(candidates.boxes)


@NMS_REGISTRY.register()
class VarianceVoting(BoxVoting):
    """Variance voting (He et al., Bounding Box Regression with Uncertainty for Accurate Object Detection, CVPR 2019,
    on variance voting; "Softer-NMS").

    Votes are divided by the predicted variances of the coordinates, so that sure boxes count more. It needs a box loss
    that trains variances (``KLLoss``). For the arguments see :class:`BoxVoting`; with ``METHOD gaussian`` it is the
    paper's Soft-NMS with voting.
    """

    wants_variances = True

    def _variances(self, candidates: Candidates):
        return torch.nan_to_num(candidates.variances, nan=torch.inf, posinf=torch.inf).clamp(min=_SMALLEST_VARIANCE)
