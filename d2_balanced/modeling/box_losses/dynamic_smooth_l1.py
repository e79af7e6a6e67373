"""Dynamic SmoothL1: a box loss whose quadratic part shrinks with the regression errors (Dynamic R-CNN, section 4.2)."""

from __future__ import annotations

from typing import Dict, List, Optional

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...utils.numbers import require
from ..dynamic_statistics import EXCLUDED, StatisticRecorder, of_batch
from ..registry import BOX_LOSS_REGISTRY
from ..stage_view import StageView

__all__ = ["DynamicSmoothL1"]


@BOX_LOSS_REGISTRY.register()
class DynamicSmoothL1(nn.Module):
    """SmoothL1 (equation 5) whose ``beta`` follows the smallest regression errors seen in training.

    The error of a proposal is the mean of |dx| and |dy| of its regression target, in the predictor's units (weights
    10, 10: standard deviations of 0.1). Every iteration records the (``k_error`` * B)-th smallest of its batch of B
    images, the last one there is if there are fewer. Every ``period`` iterations beta becomes the (upper) median of the
    records, at most ``initial_beta``, at least ``min_beta``; it takes effect from the next iteration, and is put off if
    the batch of this one recorded nothing. A median of zero leaves beta as it is: it means that there are more appended
    GT boxes, whose error is zero, than ``k_error`` an image, and says nothing about the proposals.

    ``scope="image"`` are mmdetection 2.2's rules: errors of the sampled positives only, the middle median, and an
    update after ``period`` batches that recorded. With several processes the records of all are one window.

    Args:
        k_error: the paper's K_beta, per image.
        period: the paper's C, in iterations.
        initial_beta: where beta starts, and what it never exceeds.
        min_beta: what beta never falls below. Equal to ``initial_beta``: plain SmoothL1.
        scope: "batch" (the authors' rules) or "image" (mmdetection's).
        count_appended_gt: whether the GT boxes among the proposals count; without them crowds are measured too.
        record_zeros: whether a statistic of zero enters the median, as in the authors' code.
        empty_images: what an image without GT does to its batch: "skip_batch" or "leave_out".
        bbox_reg_weights, num_classes: those of the predictor, which sets them where they are None.

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self,
        k_error: int = 10,
        period: int = 100,
        initial_beta: float = 1.0,
        min_beta: float = 0.0,
        scope: str = "batch",
        count_appended_gt: bool = True,
        record_zeros: bool = True,
        empty_images: str = "skip_batch",
        bbox_reg_weights: Optional[List[float]] = None,
        num_classes: Optional[int] = None,
    ):
        super().__init__()
        name = type(self).__name__
        require(name, "k_error", k_error, at_least=1, integer=True)
        require(name, "initial_beta", initial_beta, above=0)
        require(name, "min_beta", min_beta, at_least=0, at_most=initial_beta)
        self.k_error = k_error
        self.initial_beta = initial_beta
        self.min_beta = max(min_beta, torch.finfo(torch.float32).tiny)  # below it 1 / beta overflows
        self.count_appended_gt = count_appended_gt
        self.record_zeros = record_zeros
        self.bbox_reg_weights = bbox_reg_weights
        self.num_classes = num_classes
        self.window = StatisticRecorder(name, period, scope, empty_images)
        self.register_buffer("beta", torch.tensor(float(initial_beta)))
        self.register_buffer("last_statistic", torch.tensor(float(initial_beta)))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Elementwise loss (F, 4) of ``pred`` (F, 4) against ``target`` (F, 4); empty input gives empty output."""
        error = (pred - target).abs()
        # The quadratic branch is given what it may be chosen for only: squares of others overflow where beta is tiny.
        quadratic = 0.5 * torch.minimum(error, self.beta) ** 2 / self.beta
        return torch.where(error < self.beta, quadratic, error - 0.5 * self.beta)

    def adopt(self, bbox_reg_weights, num_classes: int) -> None:
        """Take over the box weights and the number of classes of the predictor that holds this loss, where not set."""
        self.bbox_reg_weights = bbox_reg_weights if self.bbox_reg_weights is None else self.bbox_reg_weights
        self.num_classes = num_classes if self.num_classes is None else self.num_classes

    def observe(self, view: StageView) -> None:
        """Remember the errors of a forward pass, of all labeled proposals of every image (or of the sampled positives).

        Passes that train nothing (evaluation mode, or gradients switched off) are not measured. ``view`` has one branch.
        """
        if self.training and torch.is_grad_enabled():
            (images,) = view.samples if self.window.scope.sampled_positives else view.labeled
            self.window.add_pass([self._errors(image) if image.has("gt_boxes") else None for image in images])

    def _errors(self, image: Instances) -> Tensor:
        """Negated errors (N,) of an image's proposals, so that the smallest error is the largest value."""
        if self.bbox_reg_weights is None or self.num_classes is None:
            raise RuntimeError(
                "DynamicSmoothL1: bbox_reg_weights and num_classes are not known; give them to the constructor, or "
                "hold the loss in a BalancedFastRCNNOutputLayers, which sets them."
            )
        boxes, gt_boxes = image.proposal_boxes.tensor, image.gt_boxes.tensor
        centers, gt_centers = ((b[:, :2] + 0.5 * (b[:, 2:] - b[:, :2]) for b in (boxes, gt_boxes)))
        dx, dy = ((gt_centers - centers) / (boxes[:, 2:] - boxes[:, :2])).abs().unbind(1)
        weight_x, weight_y = self.bbox_reg_weights[:2]
        errors = 0.5 * (weight_x * dx + weight_y * dy)
        return torch.where(self._counts(image) & errors.isfinite(), -errors, EXCLUDED)

    def _counts(self, image: Instances) -> Tensor:
        counts = image.gt_classes >= 0
        if self.window.scope.sampled_positives:
            counts &= image.gt_classes < self.num_classes
        return counts if self.count_appended_gt else counts & ~image.is_gt

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> Dict[str, Tensor]:
        """Record the iteration's statistic, and update beta where it is due; a collective call.

        Args:
            iteration: 0-based number of the iteration that ends.

        Returns beta and the last statistic that was recorded, as 0-d tensors.
        """
        rows = self.window.take_rows()
        statistic = None if rows is None else -of_batch(rows, self.k_error)
        if statistic is not None and not self.record_zeros:
            statistic = statistic.masked_fill(statistic == 0, float("nan"))
        recorded, due = self.window.record(statistic, iteration)
        median = self.window.scope.median(self.window.since_update())
        wanted = median.clamp(self.min_beta, self.initial_beta)
        self.beta.copy_(torch.where(due & (median > 0), wanted, self.beta))
        self.window.clear(due)
        self.last_statistic.copy_(torch.where(recorded.isnan(), self.last_statistic, recorded))
        return {"dynamic_smooth_l1/beta": self.beta, "dynamic_smooth_l1/error_statistic": self.last_statistic}
