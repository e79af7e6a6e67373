"""What a suppression is called with, and the candidates that it chooses from (seat 8).

A suppression is called with boxes, scores, image sizes and :class:`Predicted`, and returns the detections of every
image: ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, the highest scores first. It may have attributes:

- ``wants_ious``: it is called with class scores and with the predicted IoUs of the boxes, not with their product;
- ``wants_variances``: the heads have to predict the variances of the boxes;
- ``joint``: parallel branches are not merged; it is called with the boxes of all of them.

:class:`Suppression` does what all have in common. It is called at inference only.

    Ri: boxes of image i, before anything is removed      K: foreground classes      C: candidates of all images
"""

from __future__ import annotations

import copy
from typing import List, NamedTuple, Optional, Tuple

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..image_rows import first_rows, repeat, to_device
from ..returned import check_type

__all__ = ["Candidates", "Predicted", "Suppression", "one_score_each"]


class Predicted(NamedTuple):
    """detectron2's own settings, and what the heads predict beside boxes and scores."""

    score_thresh: float
    """Detections have to exceed this score (``SCORE_THRESH_TEST``)."""
    nms_thresh: float
    """``NMS_THRESH_TEST``"""
    topk_per_image: int
    """``TEST.DETECTIONS_PER_IMAGE``; below 0: all."""
    ious: Optional[List[Tensor]] = None
    """Predicted IoU (Ri,) of every box, for a suppression that wants them."""
    variances: Optional[List[Tensor]] = None
    """Variances of the boxes' corners in square pixels, of the boxes' shapes; None where nobody predicts them."""
    sources: Optional[List[Tensor]] = None
    """(Ri,) int64: which branch, detector or view a box is from, where there are several; None: all from one."""


class Candidates(NamedTuple):
    """Pairs of a box and a class whose score exceeds the threshold, image after image."""

    boxes: Tensor
    """(C, 4) pixels, clipped to the image."""
    scores: Tensor
    """(C,)"""
    classes: Tensor
    """(C,) int64 in [0, K)."""
    images: Tensor
    """(C,) int64, the image's index."""
    rows: Tensor
    """(C,) int64, the index of the box among the Ri of its image."""
    groups: Tensor
    """(C,) int64, equal for candidates of one class in one image, which are those that suppress each other."""
    ious: Optional[Tensor] = None
    """(C,) predicted; None where nobody asked for them."""
    variances: Optional[Tensor] = None
    """(C, 4) predicted, in square pixels; None where nobody predicts them."""
    sources: Optional[Tensor] = None
    """(C,) int64, the branch or detector; None: all from one."""

    @classmethod
    def above_threshold(cls, boxes, scores, image_sizes, predicted: Predicted) -> Candidates:
        """The candidates that detectron2 hands to NMS: finite ones above the score threshold, clipped to their images.

        Args:
            boxes: (Ri, 4) or, of class-specific regressors, (Ri, 4K) an image, in pixels.
            scores: (Ri, K+1) an image, the background last.
            image_sizes: (height, width) of every image.
        """
        sizes, (all_boxes, all_scores) = [len(b) for b in boxes], (torch.cat(list(b)) for b in (boxes, scores))
        finite = torch.isfinite(all_boxes).all(dim=1) & torch.isfinite(all_scores).all(dim=1)
        rows, classes = ((all_scores[:, :-1] > predicted.score_thresh) & finite[:, None]).nonzero(as_tuple=True)
        images = repeat(to_device(range(len(sizes)), rows), sizes)[rows]
        limits = to_device([(w, h, w, h) for h, w in image_sizes], all_boxes, all_boxes.dtype)
        return cls(
            boxes=_of_class(all_boxes, rows, classes).clamp(min=0).minimum(limits[images]),
            scores=all_scores[rows, classes],
            classes=classes,
            images=images,
            rows=rows - to_device(first_rows(sizes), rows)[images],
            groups=images * (all_scores.shape[1] - 1) + classes,
            ious=None if predicted.ious is None else torch.cat(list(predicted.ious))[rows],
            variances=None
            if predicted.variances is None
            else _of_class(torch.cat(list(predicted.variances)), rows, classes),
            sources=None if predicted.sources is None else torch.cat(list(predicted.sources))[rows],
        )

    def select(self, which: Tensor) -> Candidates:
        """Those at these indices, in their order, or of this mask."""
        return Candidates(*(None if each is None else each[which] for each in self))

    def of_images(self, num_images: int) -> List[Candidates]:
        """One for each of the images; costs one transfer to the host."""
        counts = torch.bincount(self.images, minlength=num_images).tolist()
        parts = ([None] * num_images if each is None else each.split(counts) for each in self)
        return [Candidates(*each) for each in zip(*parts)]

    def best_first(self) -> Candidates:
        """Sorted by image, then by score from the highest; the earlier of equals comes first."""
        order = self.scores.argsort(descending=True, stable=True)
        return self.select(order[self.images[order].argsort(stable=True)])

    def nms(self, thresh: float, keys: Optional[Tensor] = None) -> Tensor:
        """Indices of what detectron2's per-class NMS keeps, image after image, the highest ``keys`` (C,) first (None:
        the scores)."""
        keys, kept, first = self.scores if keys is None else keys, [], 0
        # Image by image, as detectron2 does: torchvision moves the classes apart, which changes the last bits of IoUs.
        for size in torch.unique_consecutive(self.images, return_counts=True)[1].tolist():
            part = slice(first, first + size)
            kept.append(batched_nms(self.boxes[part], keys[part], self.classes[part], thresh) + first)
            first += size
        return torch.cat(kept)


def _of_class(values: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
    """(C, 4) of (R, 4) or (R, 4K)."""
    values = values.view(len(values), values.shape[1] // 4, 4)
    return values[rows, 0 if values.shape[1] == 1 else classes]


class Suppression(nn.Module):
    """Removes duplicates: candidates above the threshold, :meth:`suppress`, the best of every image, :meth:`refine`.

    Images without boxes, or without any above the threshold, have no detections; boxes or scores that are not finite
    are dropped, as detectron2 does.

    Args:
        joint: "joint NMS": mix the boxes of all parallel branches, each with its own scores, instead of merging the
            branches' predictions box by box (RGA + PRM, sec. 3.3, on ensembles). Needs two branches or more.
    """

    #: see above
    wants_ious = False
    wants_variances = False
    #: how many branches or detectors the boxes are from, whether or not all of them find something in an image
    num_sources = 1

    def __init__(self, joint: bool = False):
        super().__init__()
        self.joint = joint

    def expect_sources(self, number: int) -> None:
        """Called by what will use the suppression, with the number of branches or detectors that ``sources`` tell apart."""
        self.num_sources = number

    def of_views(self, number: int) -> Suppression:
        """The suppression for what one detector finds in so many views of an image: to it each view is a detector."""
        other = copy.copy(self)
        other.num_sources = number
        return other

    def forward(
        self, boxes: List[Tensor], scores: List[Tensor], image_sizes: List[Tuple[int, int]], predicted: Predicted
    ) -> List[Instances]:
        """The detections of every image. For the arguments see :meth:`Candidates.above_threshold`."""
        if torch.jit.is_tracing():
            raise NotImplementedError(f"{type(self).__name__} cannot be traced; export the detector with NMS.")
        candidates = Candidates.above_threshold(boxes, scores, image_sizes, predicted)
        kept = self.best(candidates, len(boxes), predicted)
        return [_detections(*each) for each in zip(kept, image_sizes)]

    def best(self, candidates: Candidates, num_images: int, predicted: Predicted) -> List[Candidates]:
        """What of the candidates is detected: those of every image, the highest score first."""
        kept = self.suppress(candidates, predicted.nms_thresh) if len(candidates.scores) else candidates
        check_type(self, "a suppression, MODEL.BALANCED.NMS", kept, Candidates, "for indices: candidates.select(indices)")
        kept = kept.best_first().of_images(num_images)
        if predicted.topk_per_image >= 0:
            kept = [image.select(slice(predicted.topk_per_image)) for image in kept]
        return [self.refine(*each) for each in zip(kept, candidates.of_images(num_images))]

    def suppress(self, candidates: Candidates, nms_thresh: float) -> Candidates:
        """What remains of the candidates of all images, in any order, with its scores; there is at least one candidate.

        Only those of one group (``candidates.groups``) may suppress each other.
        """
        raise NotImplementedError

    def refine(self, kept: Candidates, candidates: Candidates) -> Candidates:
        """The final boxes of the detections of one image, given all its candidates: as they are."""
        return kept

    def extra_repr(self):
        own = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in own.items())


def _detections(kept: Candidates, image_size) -> Instances:
    return Instances(image_size, pred_boxes=Boxes(kept.boxes), scores=kept.scores, pred_classes=kept.classes)


def one_score_each(image: Instances, num_classes: int, score_thresh: float) -> Tensor:
    """Scores (Ri, K+1) of boxes that have one class each, for a suppression: those of other classes are below the
    threshold.

    Args:
        image: with ``scores`` and ``pred_classes``.
    """
    scores = image.scores.new_full((len(image), num_classes + 1), score_thresh - 1)
    return scores.scatter(1, image.pred_classes[:, None], image.scores[:, None])
