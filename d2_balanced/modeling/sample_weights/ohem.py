"""OHEM: a step trains on the proposals of the highest loss."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from ...utils.numbers import require
from ..arguments import check_range
from ..image_rows import repeat, selected_by_image
from ..registry import SAMPLE_WEIGHTS_REGISTRY
from .ranks import local_rank, unsuppressed
from .seat import SampleWeights

__all__ = ["OHEM"]

CANDIDATES = ("all", "sampled")
PER = ("image", "batch")
LOSSES = ("both", "cls")


@SAMPLE_WEIGHTS_REGISTRY.register()
class OHEM(SampleWeights):
    """Online hard example mining (Shrivastava et al., Training Region-based Object Detectors with Online Hard Example
    Mining, CVPR 2016).

    Every candidate gets a loss in a forward pass without gradients. Of candidates that overlap the one of the highest
    loss stays, and of the rest the hardest are the minibatch, which is then pooled, predicted and trained on.

    Args:
        num_per_image: how many, in every image; None: the branch's batch size, detectron2's BATCH_SIZE_PER_IMAGE.
        candidates: "all" proposals, or those that the sampler has "sampled", which is cheaper.
        nms_thresh: IoU above which candidates are the same, in (0, 1]; 1: all are kept. The paper: 0.7.
        per: the hardest of each "image", or of the "batch": as many together.
        losses: "both" the classification's and the boxes', weighted as in training, or "cls".
        fraction: keep to the branch's share of positives (POSITIVE_FRACTION): the hardest positives up to it, then the
            hardest negatives. Without it, as in the paper, nothing bounds the ratio.

    With the candidates "sampled", ``nms_thresh`` 1 and no ``num_per_image`` the sampled minibatch stays as it is.

    Raises:
        ValueError: for a value out of range.
    """

    to_sample = "set candidates to 'sampled', or leave one of them out"
    to_keep_fraction = "set fraction to True"
    without_boxes = "set losses to 'cls'"

    def __init__(
        self,
        num_per_image: Optional[int] = None,
        candidates: str = "all",
        nms_thresh: float = 0.7,
        per: str = "image",
        losses: str = "both",
        fraction: bool = False,
    ):
        super().__init__()
        if num_per_image is not None:
            require(self, "num_per_image", num_per_image, at_least=1, integer=True)
        require(self, "nms_thresh", nms_thresh, above=0, at_most=1)
        names = (("candidates", candidates, CANDIDATES), ("per", per, PER), ("losses", losses, LOSSES))
        for argument, value, allowed in names:
            check_range(self, argument, value, f"one of {list(allowed)}", value in allowed)
        self.num_per_image = num_per_image
        self.candidates = candidates
        self.nms_thresh = nms_thresh
        self.per = per
        self.losses = losses
        self.fraction = fraction

    @property
    def takes_all_proposals(self) -> bool:
        return self.candidates == "all"

    @property
    def keeps_fraction(self) -> bool:
        return self.fraction

    @property
    def reads_boxes(self) -> bool:
        return self.losses == "both"

    def choose(self, view, losses, num_per_image, positive_fraction):
        samples = view.samples[0]
        sizes = [len(image) for image in samples]
        num = num_per_image if self.num_per_image is None else self.num_per_image
        hardness, positive = self._hardness(losses), losses.positive
        image = repeat(torch.arange(len(sizes), device=hardness.device), sizes)
        kept = torch.ones_like(positive)
        if self.nms_thresh < 1:
            boxes = torch.cat([each.proposal_boxes.tensor for each in samples])
            kept = unsuppressed(boxes, hardness, image, self.nms_thresh)
        if self.per == "batch":
            num, image = num * len(sizes), torch.zeros_like(image)
        settings = len(sizes), num, int(num * positive_fraction)
        chosen = self._hardest(hardness, kept, positive, image, *settings)
        rows = selected_by_image(torch.cat([chosen & positive, chosen & ~positive]), sizes * 2)
        return list(zip(rows[: len(sizes)], rows[len(sizes) :]))

    def _hardness(self, losses) -> Tensor:
        of_cls, of_box = losses.loss_weights
        hardness = of_cls * losses.cls.float()
        return hardness if self.losses == "cls" else hardness + of_box * losses.box.float()

    def _hardest(self, hardness, kept, positive, group, num_groups: int, num: int, quota: int) -> Tensor:
        """(N,) bool: of those that are kept the ``num`` hardest of each group; with ``fraction`` the hardest ``quota``
        positives of it, and the hardest negatives up to ``num``."""
        hardness = hardness.masked_fill(~kept, -torch.inf)
        if not self.fraction:
            return kept & (local_rank(hardness, group) < num)
        rank = local_rank(hardness, 2 * group + positive)
        positives = kept & positive & (rank < quota)
        taken = group.new_zeros(num_groups).index_add_(0, group, positives.to(group.dtype))
        return positives | (kept & ~positive & (rank < num - taken[group]))

    def extra_repr(self):
        return f"candidates={self.candidates!r}, num_per_image={self.num_per_image}, nms_thresh={self.nms_thresh}"
