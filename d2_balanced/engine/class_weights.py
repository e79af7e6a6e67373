"""Weights of a checkpoint for a model with other classes: what belongs to a class goes where that class is now."""

from __future__ import annotations

import logging
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from ..data.identity import match_classes
from .class_match import describe_match

__all__ = ["match_weights"]

logger = logging.getLogger(__name__)


class _Layer(NamedTuple):
    """A layer whose output rows belong to classes: ``groups`` blocks of all classes, each with ``per_class`` rows."""

    name: str
    per_class: int = 1
    tail: int = 0  # rows at the end that belong to no class: the background
    groups: int = 1


def match_weights(model: nn.Module, state: Dict[str, torch.Tensor], trained: tuple, wanted: tuple) -> None:
    """Rearrange ``state``, a checkpoint's weights, in place for a model of the ``wanted`` classes.

    The rows of classes with equal names move to their new places, those of new classes keep the model's initial
    values. Done for the box predictors, mask heads and RetinaNet's head, and for what other modules name in
    ``class_dims``, ``{parameter or buffer: dimension of the classes}``, as losses do that count classes; nothing happens
    where the classes are the same, or those of the checkpoint are not known. The log says what was matched.

    Args:
        model: built for the ``wanted`` classes.
        trained, wanted: ((category id, name), ...) in the order of the class indices, as in ``RunIdentity.classes``.
    """
    if not trained or not wanted:
        return
    match = match_classes(trained, wanted)
    if match.is_same and len(trained) == len(wanted):
        return
    logger.warning("The weights are of other classes, which are matched by name: %s.", describe_match(trained, wanted))
    own = model.state_dict()
    for prefix, layer in _layers(model):
        for kind in ("weight", "bias"):
            key = f"{prefix}{layer.name}.{kind}"
            if key in state and key in own:
                state[key] = _rearranged(torch.as_tensor(state[key]), own[key], layer, match.indices, len(trained))
    for key, dim in _named_by_modules(model):
        if key in state and key in own and torch.as_tensor(state[key]).dim() == own[key].dim():
            old, new = (each.transpose(0, dim) for each in (torch.as_tensor(state[key]), own[key]))
            moved = _rearranged(old, new, _Layer(key), match.indices, len(trained))
            state[key] = moved.transpose(0, dim).contiguous()


def _layers(model: nn.Module) -> Iterator[Tuple[str, _Layer]]:
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, FastRCNNOutputLayers):
            yield prefix, _Layer("cls_score", tail=1)
            per_class = len(module.box2box_transform.weights) // getattr(module.bbox_pred, "num_places", 1)
            yield prefix, _Layer("bbox_pred", per_class=per_class)
            yield prefix, _Layer("bbox_log_variance", per_class=per_class)
        elif isinstance(module, MaskRCNNConvUpsampleHead):
            yield prefix, _Layer("predictor")
        elif isinstance(module, RetinaNetHead):
            anchors = module.bbox_pred.out_channels // 4
            yield prefix, _Layer("cls_score", groups=anchors)


def _named_by_modules(model: nn.Module) -> Iterator[Tuple[str, int]]:
    """Keys of the model's state, and the dimension of each that belongs to classes."""
    for path, module in model.named_modules():
        for name, dim in getattr(module, "class_dims", {}).items():
            yield (f"{path}." if path else "") + name, dim


def _rearranged(old: torch.Tensor, own: torch.Tensor, layer: _Layer, indices: List[Optional[int]], num_old: int):
    """The rows of ``old`` where their classes are in ``own``; ``old`` itself if its rows do not belong to classes."""
    num_new = len(indices)
    sizes = [layer.groups * number * layer.per_class + layer.tail for number in (num_old, num_new)]
    if (len(old), len(own)) != tuple(sizes) or old.shape[1:] != own.shape[1:]:
        return old
    new = own.detach().cpu().clone()
    old_body, new_body = (
        tensor[: len(tensor) - layer.tail].view(layer.groups, number, layer.per_class, *tensor.shape[1:])
        for tensor, number in ((old, num_old), (new, num_new))
    )
    for index, before in enumerate(indices):
        if before is not None:
            new_body[:, index] = old_body[:, before]
    if layer.tail:
        new[-layer.tail:] = old[-layer.tail:]
    return new
