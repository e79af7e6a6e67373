"""Several detectors that are evaluated as one: their detections are mixed, and what they have in common is removed.

Shape shorthand: D: detections of all detectors in an image.
"""

from __future__ import annotations

import os
from typing import List, Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from ..modeling.suppression import NMS, Candidates, Predicted, Suppression
from ..modeling.test_limits import limits_of
from ..utils.errors import CheckpointError, Refusal
from .class_match import describe_match
from .experiment import Experiment
from .open import open_checkpoint, open_of_checkpoint, open_run

__all__ = ["Ensemble", "ensemble_of"]


class Ensemble(nn.Module):
    """Joint NMS of several detectors (RGA + PRM, sec. 3.3, on ensembles), or another suppression of what they find.

    Each detector removes its own duplicates first. Masks are those of the detections that stay; a score of a mask changes
    as that of its box does. An image in which
    nobody finds anything has no detections.

    Args:
        models: detectors that give ``[{"instances": Instances}]`` for a list of dicts, with the same classes.
        nms: a :class:`Suppression`, which is given the detector of every box in ``sources``.
        nms_thresh, topk_per_image: see :class:`Predicted`.

    Raises:
        Refusal: for a suppression that goes by what is predicted beside boxes and scores, or has weights of another
            number of detectors.
    """

    def __init__(self, models: Sequence[nn.Module], nms: Suppression, nms_thresh: float, topk_per_image: int):
        super().__init__()
        wants = getattr(nms, "wants_ious", False) or getattr(nms, "wants_variances", False)
        if wants or not isinstance(nms, Suppression):
            reason = "it goes by more than the boxes and scores of detections"
            raise Refusal("--ensemble", f"{type(nms).__name__} (MODEL.BALANCED.NMS)", reason, "take NMS or SoftNMS")
        self.models, self.nms = nn.ModuleList(models), nms
        nms.expect_sources(len(self.models))
        self.predicted = Predicted(-1.0, nms_thresh, topk_per_image)
        self.eval()

    def forward(self, inputs: List[dict]) -> List[dict]:
        """``[{"instances": Instances}]``, in the pixels in which the detectors tell their boxes."""
        found = [model(inputs) for model in self.models]
        return [{"instances": self._mixed([each["instances"] for each in image])} for image in zip(*found)]

    def _mixed(self, found: List[Instances]) -> Instances:
        every = Instances.cat(_with_common_fields(found))
        if not len(every):
            return every
        counts = torch.tensor([len(each) for each in found])
        sources = torch.repeat_interleave(torch.arange(len(found)), counts).to(every.scores.device)
        rows = torch.arange(len(every), device=every.scores.device)
        candidates = Candidates(
            boxes=every.pred_boxes.tensor,
            scores=every.scores,
            classes=every.pred_classes,
            images=torch.zeros_like(rows),
            rows=rows,
            groups=every.pred_classes,
            sources=sources,
        )
        (kept,) = self.nms.best(candidates, 1, self.predicted)
        mixed = every[kept.rows]
        if mixed.has("mask_scores"):  # the box's score times the mask's IoU
            smallest = torch.finfo(mixed.scores.dtype).tiny
            mixed.mask_scores = mixed.mask_scores * (kept.scores / mixed.scores.clamp(min=smallest))
        mixed.pred_boxes, mixed.scores, mixed.pred_classes = Boxes(kept.boxes), kept.scores, kept.classes
        return mixed


def _with_common_fields(found: List[Instances]) -> List[Instances]:
    """The detections with what all detectors tell of them: masks only if all have some."""
    names = [name for name in found[0].get_fields() if all(each.has(name) for each in found)]
    return [Instances(each.image_size, **{name: each.get(name) for name in names}) for each in found]


def ensemble_of(experiment: Experiment, model: nn.Module, others: Sequence[str]) -> Ensemble:
    """The experiment's detector with others, for its evaluation.

    The experiment's suppression removes what the detectors have in common, with its threshold and number of
    detections; each other detector removes its own duplicates as its config says, the experiment's own by NMS.

    Args:
        model: the experiment's, whose classes are ``experiment.classes``; its suppression is replaced.
        others: folders of runs (their last checkpoint), or checkpoints, which carry their configs.

    Raises:
        CheckpointError: for what is no run or checkpoint with a config, or was trained on other classes.
    """
    owner = model if hasattr(model, "nms") else getattr(model, "roi_heads", None)
    nms = getattr(owner, "nms", None) or NMS()
    if hasattr(owner, "nms"):
        owner.nms = NMS()
    limits = limits_of(model)
    return Ensemble([model, *(_opened(experiment, path) for path in others)], nms, limits.nms_thresh, limits.detections)


def _opened(experiment: Experiment, path: str) -> nn.Module:
    other = open_run(path) if os.path.isdir(path) else open_of_checkpoint(path)
    other.set_run(device=experiment.settings.device)
    model = open_checkpoint(other, needs_data=False)
    told = describe_match(other.classes, experiment.classes) if other.classes and experiment.classes else ""
    if told:
        raise CheckpointError(f"--ensemble {path}: it has other classes than the detector beside it: {told}.")
    return model.eval()
