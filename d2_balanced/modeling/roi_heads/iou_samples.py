"""What the IoU branch trains on: boxes generated in all IoU intervals, or the positives of the minibatch."""

from typing import List, NamedTuple

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..iou_uniform import CASCADE_INTERVALS, RejectionIoUGenerator, UniformIoUGenerator

__all__ = ["IoUSamples", "GeneratedSamples", "ProposalSamples", "SAMPLE_SOURCES"]


class IoUSamples(NamedTuple):
    """Training boxes of a batch with their ground truth."""

    per_image: List[Boxes]
    """One ``Boxes`` an image, S together."""
    gt_boxes: Tensor
    """(S, 4), the ground truth of each."""
    ious: Tensor
    """(S,), IoU of each with it."""

    @property
    def boxes(self):
        """All training boxes (S, 4)."""
        return Boxes.cat(self.per_image).tensor


class GeneratedSamples(nn.Module):
    """Boxes made by a generator of ``iou_uniform.py``; the later stages of a cascade have higher intervals."""

    def __init__(
        self, generator_class, num_classes, num_stages, num_per_interval, max_per_image, samples_per_positive
    ):
        super().__init__()
        self.num_classes = num_classes
        intervals = [CASCADE_INTERVALS[min(k, len(CASCADE_INTERVALS) - 1)] for k in range(num_stages)]
        self.generators = nn.ModuleList(
            generator_class(each, num_per_interval=num_per_interval, max_per_image=max_per_image) for each in intervals
        )
        self.samples_per_positive = samples_per_positive

    @torch.no_grad()
    def forward(self, targets, samples, stage):
        """:class:`IoUSamples` of these targets; one interval set serves all stages where a head is shared."""
        generator = self.generators[min(stage, len(self.generators) - 1)]
        made = generator([t.gt_boxes.tensor for t in targets], [t.image_size for t in targets])
        if self.samples_per_positive:
            made = [self._thinned(m, s) for m, s in zip(made, samples)]
        gt_boxes = [t.gt_boxes.tensor[m.matched_idxs] for t, m in zip(targets, made)]
        return IoUSamples([Boxes(m.boxes) for m in made], torch.cat(gt_boxes), torch.cat([m.ious for m in made]))

    def _thinned(self, made, samples):
        """A random part of an image's boxes: ``samples_per_positive`` for every positive of its minibatch."""
        positives = (samples.gt_classes < self.num_classes).sum()
        return made.random_part(self.samples_per_positive * positives)


class ProposalSamples(nn.Module):
    """The positives of the minibatch that the classifier trains on."""

    def __init__(self, num_classes, num_stages, num_per_interval, max_per_image, samples_per_positive):
        super().__init__()
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, targets, samples, stage):
        positives = [s[s.gt_classes < self.num_classes] for s in samples]
        boxes = [p.proposal_boxes for p in positives]
        gt_boxes = torch.cat([(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in positives])
        return IoUSamples(boxes, gt_boxes, torch.cat([p.matched_ious for p in positives]))


def _uniform(*args):
    return GeneratedSamples(UniformIoUGenerator, *args)


def _rejection(*args):
    return GeneratedSamples(RejectionIoUGenerator, *args)


SAMPLE_SOURCES = {"uniform": _uniform, "rejection": _rejection, "proposals": ProposalSamples}
"""Sources of the IoU branch's training boxes, by name."""
