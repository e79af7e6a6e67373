"""What the IoU branch trains on: boxes generated in all IoU intervals, or the positives of the minibatch."""

from typing import List, NamedTuple

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from ...utils.errors import Refusal
from ..iou_uniform import RejectionIoUGenerator, UniformIoUGenerator, stage_intervals

__all__ = ["IoUSamples", "GeneratedSamples", "ProposalSamples", "SAMPLE_SOURCES", "check_read", "negatives_of"]


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

    def __init__(self, generator_class, num_classes, num_stages, num_intervals, samples_per_positive, **settings):
        super().__init__()
        self.num_classes = num_classes
        intervals = [stage_intervals(k, num_intervals) for k in range(num_stages)]
        self.generators = nn.ModuleList(generator_class(each, **settings) for each in intervals)
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
        """A random part of an image's boxes: ``samples_per_positive`` for every positive of its minibatch that the RPN
        produced (table 5 counts "original" ones), so without appended ground truth."""
        positives = (_is_positive(samples, self.num_classes) & ~samples.is_gt).sum()
        return made.random_part(self.samples_per_positive * positives)


class ProposalSamples(nn.Module):
    """The positives of the minibatch that the classifier trains on."""

    def __init__(self, num_classes, **_):
        super().__init__()
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, targets, samples, stage):
        return _with_objects([s[_is_positive(s, self.num_classes)] for s in samples])


@torch.no_grad()
def negatives_of(samples, num_classes):
    """:class:`IoUSamples` of the minibatch's negatives, each with the object that it overlaps most."""
    return _with_objects([s[s.gt_classes == num_classes] for s in samples])


def _is_positive(samples, num_classes):
    return (samples.gt_classes >= 0) & (samples.gt_classes < num_classes)


def _with_objects(samples):
    boxes = [s.proposal_boxes for s in samples]
    gt_boxes = torch.cat([(s.gt_boxes if s.has("gt_boxes") else s.proposal_boxes).tensor for s in samples])
    return IoUSamples(boxes, gt_boxes, torch.cat([s.matched_ious for s in samples]))


def _uniform(**settings):
    return GeneratedSamples(UniformIoUGenerator, **settings)


def _rejection(**settings):
    return GeneratedSamples(RejectionIoUGenerator, **settings)


SAMPLE_SOURCES = {"uniform": _uniform, "rejection": _rejection, "proposals": ProposalSamples}
"""Sources of the IoU branch's training boxes, by name."""


def check_read(sources, predict_iou, iou_negatives, num_intervals, samples_per_positive):
    """Raise ``Refusal`` for a setting of the IoU predictor, or of generated boxes, where there are none.

    Args:
        sources: a mapping from names in ``SAMPLE_SOURCES`` to the sources that are used.
        predict_iou and the others: arguments of ``IoUBranch``.
    """
    if iou_negatives and not predict_iou:
        reason = "there is no IoU predictor that would train on them"
        raise Refusal(_shown("iou_negatives", True), _shown("predict_iou", False), reason)
    if any(isinstance(source, GeneratedSamples) for source in sources.values()):
        return
    for name, value in {"num_intervals": num_intervals, "samples_per_positive": samples_per_positive}.items():
        if value:
            reason = "no boxes are generated: all are of the minibatch"
            raise Refusal(_shown(name, value), _shown("regressor_samples", "proposals"), reason)


def _shown(name, value):
    return f"{name}={value} (MODEL.BALANCED.IOU_BRANCH.{name.upper()})"
