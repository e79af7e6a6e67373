"""Boxes that join the proposals in training: generated positives for any box head (IoU-Uniform R-CNN, sec. 3.1)."""

import torch
from detectron2.structures import Boxes
from torch import nn

from ..utils.numbers import require
from .iou_uniform import INTERVALS, UniformIoUGenerator
from .registry import EXTRA_PROPOSALS_REGISTRY

__all__ = ["GeneratedPositives"]


@EXTRA_PROPOSALS_REGISTRY.register()
class GeneratedPositives(nn.Module):
    """Boxes around the objects, as many in every IoU interval, beside the proposals.

    They are labeled and sampled like proposals, so they give every head of the first stage more positives, and the
    classifier, too; the sampler's positive fraction remains the limit. (In the paper's table 5 only the regressor has
    such boxes: ``SAMPLES_PER_POSITIVE`` of the IoU branch.)

    Args:
        per_positive: keep a random part of an image's boxes: so many for every positive among its proposals (1:
            "equal", 2: "double"); 0: keep all.
        num_per_interval: boxes an IoU interval and object.
        max_per_image: limit for crowds, see ``UniformIoUGenerator``.
        intervals: IoU intervals ``(low, high)``.

    Raises ``ValueError`` for settings out of range.
    """

    def __init__(self, per_positive=0.0, num_per_interval=16, max_per_image=512, intervals=INTERVALS):
        super().__init__()
        self.per_positive = require(self, "per_positive", per_positive, at_least=0)
        self.generator = UniformIoUGenerator(intervals, num_per_interval, max_per_image)

    @torch.no_grad()
    def forward(self, labeled, targets, num_classes):
        """Extra boxes, one ``Boxes`` an image; none for images without objects.

        Args:
            labeled: list of labeled proposals (``roi_heads/labeling.py``), with appended ground truth.
            targets: list of ``Instances`` with ``gt_boxes``.
            num_classes: number of foreground classes.
        """
        made = self.generator([t.gt_boxes.tensor for t in targets], [t.image_size for t in targets])
        if self.per_positive:
            wanted = [self.per_positive * _num_positives(image, num_classes) for image in labeled]
            made = [boxes.random_part(num) for boxes, num in zip(made, wanted)]
        return [Boxes(each.boxes) for each in made]


def _num_positives(labeled, num_classes):
    """How many of an image's own proposals are positive, a 0-d tensor."""
    return ((labeled.gt_classes >= 0) & (labeled.gt_classes < num_classes) & ~labeled.is_gt).sum()
