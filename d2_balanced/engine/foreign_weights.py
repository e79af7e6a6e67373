"""Weights that other programs have saved: where they are in the file, under which names, and whether they are ours.

Layouts that hold detectron2's names somewhere (Lightning, tutorials, DDP, torch.compile) are loaded, and what was done
is said. Those of other detectors (mmdetection, torchvision) are refused by name.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from ..utils.errors import CheckpointError

__all__ = ["in_detectron2_layout"]

_WRAPPERS = ("module", "model", "_orig_mod", "net", "network", "detector", "_forward_module")
_OURS = ("backbone.", "proposal_generator.", "roi_heads.", "head.", "sem_seg_head.", "pixel_mean", "pixel_std")
_ONLY_OURS = ("backbone.bottom_up.", "proposal_generator.")
_PREFERRED = ("model", "state_dict", "model_state_dict")
_SHOWN = 8

# layout, beginnings of names of which it has one of each group, what to do
_DETECTORS: Tuple[Tuple[str, Tuple[Tuple[str, ...], ...], str], ...] = (
    (
        "mmdetection", (("rpn_head.", "roi_head.", "bbox_head."), ("backbone.", "neck.")),
        "its layers have other names and shapes, and its images another normalisation. Train from detectron2's weights "
        "(detectron2://...), or convert the backbone alone",
    ),
    (
        "torchvision (a detector)", (("backbone.body.", "backbone.fpn.", "rpn.head.", "head.classification_head."),),
        "its layers have other names, and its images another normalisation. Convert a backbone of torchvision with "
        "detectron2's tools/convert-torchvision-to-d2.py, or train from detectron2's weights (detectron2://...)",
    ),
    (
        "torchvision or timm (a ResNet classifier)", (("layer1.0.",), ("layer4.0.",), ("conv1.", "stem.")),
        "convert it with detectron2's tools/convert-torchvision-to-d2.py, which also says what has to be set "
        "(PIXEL_MEAN, PIXEL_STD, INPUT.FORMAT RGB, STRIDE_IN_1X1 False)",
    ),
    (
        "DETR", (("transformer.encoder.", "model.encoder."), ("class_embed.", "class_labels_classifier.")),
        "it is another detector",
    ),
)  # fmt: skip

logger = logging.getLogger(__name__)


def in_detectron2_layout(loaded: Any, path: str) -> Dict[str, Any]:
    """What ``torch.load`` returned, with the weights under ``model`` and under detectron2's names.

    Of a checkpoint in detectron2's layout all entries stay; of any other only the weights, and the log says where they
    were, which prefix of their names was cut off, and what was left out.

    Args:
        path: of the file, for log and errors.

    Raises ``CheckpointError`` for a file without weights by name, and for weights of another detector's layout.
    """
    if not isinstance(loaded, dict):
        raise CheckpointError(f"checkpoint {path!r} is a {type(loaded).__name__}, not a dict of weights by name.")
    if "model" in loaded and "iteration" in loaded and _is_weights(loaded["model"]):
        return loaded  # detectron2's or ours
    entry, weights, others = _find(loaded, path)
    if entry != "model" and others:
        place = entry or "the file itself"
        logger.warning("%s: the weights are those of %s; left out: %s.", path, place, _list(others))
    odd = [str(name) for name, value in weights.items() if not _is_array(value)]
    if odd:
        logger.warning("%s: left out, as these are no weights: %s.", path, _list(odd))
        weights = {name: value for name, value in weights.items() if _is_array(value)}
    weights = _without_wrapper(weights, path)
    _refuse_other_detectors(weights, path)
    return {**loaded, "model": weights} if entry == "model" else {"model": weights}


def _find(loaded: dict, path: str) -> Tuple[str, dict, List[str]]:
    """(entry of the file that has the weights, or "" for the file itself; weights; names of what is left out)."""
    entries = [name for name, value in loaded.items() if _is_weights(value)]
    entries.sort(key=lambda name: _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED))
    plain = {name: value for name, value in loaded.items() if isinstance(name, str) and _is_array(value)}
    if "model" in loaded and not _is_weights(loaded["model"]) and loaded["model"] != {}:
        raise CheckpointError(
            f"checkpoint {path!r} cannot be used: its entry 'model' is a {type(loaded['model']).__name__}, not a dict "
            "of weights by name."
        )
    if plain and len(plain) >= max((len(loaded[name]) for name in entries), default=0):
        return "", plain, [str(name) for name in loaded if name not in plain]
    if entries:
        return entries[0], loaded[entries[0]], [str(name) for name in loaded if name != entries[0]]
    if loaded.get("model") == {} or not loaded:
        return "model", {}, []
    odd, value = next(iter(loaded.items()))
    raise CheckpointError(
        f"checkpoint {path!r} has no weights where they usually are: {odd!r} is a {type(value).__name__}. Save the "
        f"weights by name, alone or under the key 'model'; here are {_list(list(map(str, loaded)))}."
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _is_weights(value: Any) -> bool:
    """Whether this is a dict of names and, for the greater part, arrays: modules may have a state of another kind."""
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        return False
    return 2 * sum(map(_is_array, value.values())) > len(value)


def _without_wrapper(weights: dict, path: str) -> dict:
    """Names without what a module around the detector has put before them, if that gives detectron2's names."""
    whole, cut = weights, ""
    while True:
        bare = [name for name in weights if name.startswith(_OURS)]
        inside = {wrapper: _inside(weights, wrapper + ".") for wrapper in _WRAPPERS}
        wrapper = max(inside, key=lambda name: len(inside[name]))
        if bare or not inside[wrapper]:
            break
        left_out = [name for name in weights if not name.startswith(wrapper + ".")]
        if left_out and not any(name.startswith(_OURS) for name in inside[wrapper]):
            return whole
        if left_out:
            logger.warning("%s: left out, as it is not within %s: %s.", path, wrapper, _list(left_out))
        weights, cut = inside[wrapper], f"{cut}{wrapper}."
    if not any(name.startswith(_OURS) for name in weights):
        return whole
    if cut:
        logger.warning("%s: the weights' names are used without their beginning %r.", path, cut)
    return weights


def _inside(weights: dict, beginning: str) -> dict:
    return {name[len(beginning) :]: value for name, value in weights.items() if name.startswith(beginning)}


def _refuse_other_detectors(weights: dict, path: str) -> None:
    if any(name.startswith(_ONLY_OURS) for name in weights):
        return
    for layout, groups, advice in _DETECTORS:
        if all(any(name.startswith(group) for name in weights) for group in groups):
            example = next(name for name in weights if name.startswith(groups[0]))
            raise CheckpointError(f"checkpoint {path!r} is of {layout}, as {example!r} in it shows: {advice}.")


def _list(names: List[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
