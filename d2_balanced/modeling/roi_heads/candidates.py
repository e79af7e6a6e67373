"""What the box heads find at inference before scores are changed and duplicates removed, and what is left then."""

from typing import Callable, List, NamedTuple, Optional, Tuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..suppression import Predicted

__all__ = ["BoxCandidates", "products_of", "without_duplicates"]


class BoxCandidates(NamedTuple):
    """Refined boxes of the last stage with their class scores. Ri: proposals of image i; K: foreground classes."""

    boxes: List[Tensor]
    """(Ri, 4) or, from class-specific regressors, (Ri, 4K) an image, in pixels of the network's input, not clipped."""
    scores: List[Tensor]
    """(Ri, K+1) an image: class probabilities merged over stages and branches, the background last."""
    image_sizes: List[Tuple[int, int]]
    """(height, width) of every image."""
    predictor: nn.Module
    """The last stage's predictor, which has the thresholds (``test_score_thresh``, ``test_nms_thresh``)."""
    stage: int
    """Index of the last stage."""
    pooled: Tensor
    """Features (R, C, h, w) that the boxes were predicted from, those of all images together."""
    pool: Callable[[List[Boxes]], Tensor]
    """Function from other boxes (one ``Boxes`` an image) to their features."""
    variances: Optional[List[Tensor]] = None
    """Variances of the boxes' corners in square pixels, of the boxes' shapes; None where nobody predicts them."""
    confidences: Optional[List[Tensor]] = None
    """How sure the box coder is of the boxes, (Ri, 1) or (Ri, K) an image; None where it does not tell."""

    def rows_above_threshold(self) -> List[Tensor]:
        """(Ri,) bool an image: the boxes with a class whose score exceeds the detector's threshold."""
        thresh = self.predictor.test_score_thresh
        return [(scores[:, :-1] > thresh).any(dim=1) for scores in self.scores]


def products_of(found: BoxCandidates, factors: List[Tensor], combine: Callable) -> Tuple[List[Tensor], float]:
    """Scores (Ri, K+1) of candidates whose class scores are multiplied, the background's left as they are, and the
    threshold that goes with them, 0.

    The detector's threshold applies to the class scores: what fails it is marked, what passes has a positive product.

    Args:
        factors: (Ri, 1) or (Ri, K) an image, above 0.
        combine: ``(class scores (Ri, K), factors) -> (Ri, K)``.
    """
    products = []
    for scores, of_image in zip(found.scores, factors):
        product = combine(scores[:, :-1], of_image)
        passed = scores[:, :-1] > found.predictor.test_score_thresh
        products.append(torch.cat([torch.where(passed, product, -torch.ones_like(product)), scores[:, -1:]], dim=1))
    return products, 0.0


def without_duplicates(nms, iou_branch, found: List[BoxCandidates]) -> List[Instances]:
    """The detections of every image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``.

    Args:
        nms: a suppression, see ``suppression/seat.py``.
        iou_branch: the IoU branch of the heads, which makes the scores, or gives the suppression its IoUs.
        found: the candidates of the branches together, or, for joint NMS, those of every branch.
    """
    wants_ious = getattr(nms, "wants_ious", False)
    scored = [_with_ious(iou_branch, each) if wants_ious else (*iou_branch.rescore(each), None) for each in found]
    scores, score_thresh, ious = zip(*scored)
    first = found[0]
    predicted = Predicted(
        score_thresh=score_thresh[0],
        nms_thresh=first.predictor.test_nms_thresh,
        topk_per_image=first.predictor.test_topk_per_image,
        ious=_joined(ious),
        variances=_joined([each.variances for each in found]),
        sources=_joined([_filled(each.boxes, source) for source, each in enumerate(found)]) if len(found) > 1 else None,
    )
    return nms(_joined([each.boxes for each in found]), _joined(scores), first.image_sizes, predicted)


def _with_ious(iou_branch, found):
    """Class scores, the threshold of detections, and predicted IoUs (Ri,) of what exceeds it."""
    ious = iou_branch.predicted_ious(found, iou_branch.efo, found.rows_above_threshold())
    return found.scores, found.predictor.test_score_thresh, ious


def _joined(parts):
    """One list of tensors, of all branches together an image, from one list a branch; None where a branch has none."""
    if any(part is None for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    return [torch.cat(image) for image in zip(*parts)]


def _filled(boxes, number):
    return [torch.full((len(b),), number, dtype=torch.int64, device=b.device) for b in boxes]
