"""The branch axis: box heads that work side by side on the same images, each on its own minibatch."""

from collections.abc import Sequence

from torch import nn

from ...utils.numbers import require
from ..sampling import sample_images

__all__ = ["BoxBranch", "as_module"]


class BoxBranch:
    """One box module of an R-CNN: a box head and predictor (or one pair a stage), and how its minibatch is drawn.

    Parallel R-CNN modules (RGA + PRM, sec. 3.2) are several of these with different positive fractions. A plain
    object: the ROI heads register its modules under their own names, so that branch 0 has detectron2's keys.

    Args:
        box_head: module from pooled features to box features; a list of them: one a stage.
        box_predictor: module like ``FastRCNNOutputLayers``; a list of them: one a stage.
        positive_fraction: share of the minibatch that is foreground, in (0, 1].
        batch_size_per_image: RoIs drawn an image.
        sampler: proposal sampler, see ``PROPOSAL_SAMPLER_REGISTRY``.

    Raises ``ValueError`` for a fraction or size out of range, or lists of different lengths.
    """

    def __init__(self, *, box_head, box_predictor, positive_fraction, batch_size_per_image, sampler):
        self.box_head = as_module(box_head)
        self.box_predictor = as_module(box_predictor)
        if _num_stages(self.box_head) != _num_stages(self.box_predictor):
            raise ValueError(
                f"BoxBranch: box_head and box_predictor must be as many, got {_num_stages(self.box_head)} and "
                f"{_num_stages(self.box_predictor)}"
            )
        require(self, "positive_fraction", positive_fraction, above=0, at_most=1)
        require(self, "batch_size_per_image", batch_size_per_image, at_least=1, integer=True)
        self.positive_fraction = positive_fraction
        self.batch_size_per_image = batch_size_per_image
        self.sampler = sampler

    @property
    def num_heads(self):
        """Stages with a head of their own, or ``None`` if one head serves any number of stages."""
        return _num_stages(self.box_head)

    def predictor(self, stage):
        """The predictor of a stage (counted from 0)."""
        return self.box_predictor[stage] if isinstance(self.box_predictor, nn.ModuleList) else self.box_predictor

    def for_each_predictor(self, function):
        """Call ``function`` on every predictor of the branch."""
        for stage in range(self.num_heads or 1):
            function(self.predictor(stage))

    def predict(self, pooled, stage):
        """Pooled features (R, C, h, w) of a stage to the predictor's output: logits (R, K+1), deltas (R, 4 or 4K)."""
        head = self.box_head[stage] if isinstance(self.box_head, nn.ModuleList) else self.box_head
        return self.predictor(stage)(head(pooled))

    def sample(self, labeled, bg_label):
        """Draw the minibatch of every image from its labeled proposals; returns a pair (positive, negative) of index
        tensors for each."""
        return sample_images(
            self.sampler,
            [image.gt_classes for image in labeled],
            [image.matched_ious for image in labeled],
            [image.matched_idxs for image in labeled],
            self.batch_size_per_image,
            self.positive_fraction,
            bg_label,
        )


def as_module(modules):
    """A module as it is; a list of modules (one a stage) as a ``ModuleList``."""
    return nn.ModuleList(modules) if isinstance(modules, Sequence) else modules  # LazyConfig gives a ListConfig


def _num_stages(module):
    return len(module) if isinstance(module, nn.ModuleList) else None
