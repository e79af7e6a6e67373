"""What one stage of a two-stage detector's training step is made of, for whoever watches it.

Shape shorthand: B: images; P: branches; R: RoIs of a branch's minibatch, those of all images; K: foreground classes.
"""

from typing import List, NamedTuple, Tuple

import torch
from detectron2.structures import Instances
from torch import Tensor

from .predictions import rows_of

__all__ = ["StageView"]


class StageView(NamedTuple):
    """One stage, after its predictions and before its losses.

    ``BalancedROIHeads`` shows it to everything that has a method ``observe(view)``: to the objects in its list
    ``observers`` as it is, and to the adaptive components of a branch as the view of that branch alone. Watching draws
    no random number and changes nothing in the view.
    """

    stage: int
    """Index of the stage."""
    targets: List[Instances]
    """The ground truth of B images."""
    labeled: List[List[Instances]]
    """P lists of B labeled proposals (``roi_heads/labeling.py``)."""
    samples: List[List[Instances]]
    """P lists of B minibatches that were drawn from them."""
    pooled: List[Tensor]
    """P tensors (R, C, h, w): features of the samples, image by image."""
    predictions: List[Tuple[Tensor, Tensor]]
    """P pairs of class logits (R, K+1), background last, and deltas (R, 4) or (R, 4K); they carry gradients. Predicted
    variances, if there are any, are beside the pair (``predictions.py``)."""

    def of_branch(self, p):
        """The view of branch ``p`` alone: its lists have one entry."""
        return StageView(self.stage, self.targets, *([of_branches[p]] for of_branches in self[2:]))

    @torch.no_grad()
    def without_generated(self):
        """The view without the rows of generated boxes (``extra_proposals.py``), which are no proposals."""
        if not any(image.has("is_generated") for images in self.labeled for image in images):
            return self
        rows = [(~torch.cat([image.is_generated for image in images])).nonzero()[:, 0] for images in self.samples]
        return self._replace(
            labeled=[[image[~image.is_generated] for image in images] for images in self.labeled],
            samples=[[image[~image.is_generated] for image in images] for images in self.samples],
            pooled=[pooled[kept] for pooled, kept in zip(self.pooled, rows)],
            predictions=[rows_of(pair, kept) for pair, kept in zip(self.predictions, rows)],
        )
