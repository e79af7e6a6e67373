"""What the box heads find at inference before scores are changed and duplicates removed."""

from typing import Callable, List, NamedTuple, Optional, Tuple

from detectron2.structures import Boxes
from torch import Tensor, nn

__all__ = ["BoxCandidates"]


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
