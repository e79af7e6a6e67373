"""A detector in the classes of another data set: its classes are matched by name, never by index."""

from __future__ import annotations

import logging
from typing import List, Optional, Sequence, Tuple

import torch
from detectron2.data import MetadataCatalog
from torch import nn

from ..data.identity import dataset_identity, match_classes
from ..utils.errors import DataError

__all__ = ["RenumberedClasses", "describe_classes", "describe_match", "in_classes_of"]

logger = logging.getLogger(__name__)


class RenumberedClasses(nn.Module):
    """A detector whose detections have other class indices; those of classes without one are left out.

    Args:
        model: takes a list of dicts and returns a list of dicts, with ``instances`` where it detects objects.
        indices: for every class of the model its new index, or ``None``.
    """

    def __init__(self, model: nn.Module, indices: Sequence[Optional[int]]):
        super().__init__()
        self.model = model
        numbers = [-1 if index is None else index for index in indices]
        self.register_buffer("indices", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        self.train(model.training)

    def forward(self, inputs: List[dict]) -> List[dict]:
        return [self._renumbered(output) for output in self.model(inputs)]

    def _renumbered(self, output: dict) -> dict:
        instances = output.get("instances")
        if instances is None:
            return output
        classes = self.indices.to(instances.pred_classes.device)[instances.pred_classes]
        instances = instances[classes >= 0]
        instances.pred_classes = classes[classes >= 0]
        return {**output, "instances": instances}


def in_classes_of(model: nn.Module, classes: Tuple[Tuple[int, str], ...], dataset: str) -> nn.Module:
    """``model``, whose ``classes`` ((category id, name) by index) are known, for a registered data set.

    The model itself if both have the same names in the same order, or if the model's are not known (empty). Otherwise a
    :class:`RenumberedClasses`; the log says what was matched. Raises ``DataError`` if no name is in both.
    """
    if not classes or not MetadataCatalog.get(dataset).get("thing_classes"):
        return model
    own = dataset_identity(dataset).classes
    match = match_classes(classes, own)
    if match.is_same:
        return model
    told = describe_match(classes, own)
    if all(index is None for index in match.indices):
        raise DataError(f"{dataset} has none of the model's classes: {told}. Is it the right data set, or checkpoint?")
    logger.warning("%s is evaluated with classes matched by name: %s.", dataset, told)
    renumbered: List[Optional[int]] = [None] * len(classes)
    for index, of_model in enumerate(match.indices):
        if of_model is not None:
            renumbered[of_model] = index
    return RenumberedClasses(model, renumbered)


def describe_match(model: Sequence[Tuple[int, str]], data: Sequence[Tuple[int, str]]) -> str:
    """In words, how the classes of data stand to those of a model; empty if the names are the same in the same order."""
    match = match_classes(model, data)
    if match.is_same:
        return ""
    parts = [f"the model was trained on {describe_classes(model)}, the data have {describe_classes(data)}"]
    if match.missing:
        parts.append(f"not in the data, and left out: {', '.join(match.missing)}")
    if match.new:
        parts.append(f"unknown to the model: {', '.join(match.new)}")
    if not match.missing and not match.new:
        parts.append("the same names in another order")
    return "; ".join(parts)


def describe_classes(classes: Sequence[Tuple[int, str]]) -> str:
    """``[name (id 1), ...]``"""
    return f"[{', '.join(f'{name} (id {number})' for number, name in classes)}]"
