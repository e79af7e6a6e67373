"""What does not go together in a config: settings that the detector would ignore, and detectors that cannot be built.

A part of the detector says itself which settings of this package it reads, in its attribute ``reads``; detectron2's own
settings are listed here. What only built parts tell, they refuse themselves with the same error
(:class:`~d2_balanced.utils.errors.Refusal`): ROI heads in ``modeling/roi_heads/check_axes.py``, box losses in
``modeling/box_predictor.py``. docs/COMPATIBILITY.md shows all of them.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from d2_balanced import compat

from ..data.mapper import IgnoreRegionMapper
from ..modeling.roi_heads.mask_branch import without_masks
from ..utils.errors import Refusal
from .detectron2_names import CHOOSERS, is_a, registered
from .lazy_targets import find_target, walk
from .yacs import value_at

__all__ = ["check_compiled_lazy", "check_refusals", "check_refusals_lazy"]

_HEADS, _GENERATOR, _ARCHITECTURE = "MODEL.ROI_HEADS.NAME", "MODEL.PROPOSAL_GENERATOR.NAME", "MODEL.META_ARCHITECTURE"
_GIVEN = "PrecomputedProposals"  # detectron2's name for no proposal generator
_REGIONS = "INPUT.IGNORE_REGIONS"
_DENSE = ("RetinaNet", "FCOS")


class _Part(NamedTuple):
    """A part that not every detector has.

    ``lacking``: the meta-architectures without it, whatever its key says; ``settings``: those of detectron2's own
    settings that choose something in it. Others, such as sizes, may come from a base config.
    """

    name: str
    lacking: Tuple[str, ...]
    settings: Tuple[str, ...]


_PARTS = {
    _HEADS: _Part("ROI heads", ("ProposalNetwork", *_DENSE), (
        "MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.ROI_HEADS.IOU_THRESHOLDS", "MODEL.ROI_HEADS.IOU_LABELS",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT",
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", "MODEL.ROI_BOX_HEAD.NAME",
        "MODEL.ROI_MASK_HEAD.NAME",
    )),
    _GENERATOR: _Part("RPN", _DENSE, (
        "MODEL.RPN.BBOX_REG_LOSS_TYPE", "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", "MODEL.RPN.SMOOTH_L1_BETA",
    )),
}  # fmt: skip
# What a RetinaNet reads and FCOS, which has no anchors, does not.
_OF_ANCHORS = (
    "MODEL.ANCHOR_GENERATOR.", "MODEL.RETINANET.IOU_", "MODEL.RETINANET.BBOX_REG_", "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
)  # fmt: skip
# Settings of detectron2 that this trainer and its evaluation do not honour, and why.
_NOT_SUPPORTED = {
    "TEST.PRECISE_BN.ENABLED": "its batches are not part of the exact data order",
    "TEST.EXPECTED_RESULTS": "results are not verified (compare inference/<data set>/metrics.json)",
    "SOLVER.REFERENCE_WORLD_SIZE": "--auto-scale-lr is there instead",
}
_TRAIN_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
# What works on rotated boxes, and settings that may name it.
_ROTATED = ("RRPN", "RROIHeads", "ROIAlignRotated", "RotatedFastRCNNOutputLayers")
_POOLERS = tuple(f"MODEL.ROI_{head}_HEAD.POOLER_TYPE" for head in ("BOX", "MASK", "KEYPOINT"))


def check_refusals(cfg: CfgNode, changes: Dict[str, Any]) -> None:
    """Raise ``Refusal`` for the first of ``changes`` (``{key: value}``) that does not go with the rest of a config."""
    for rule in _RULES:
        for refusal in rule(cfg, changes):
            raise refusal


def check_compiled_lazy(cfg: DictConfig, where: str = "") -> None:
    """Raise ``Refusal`` if a node is, or is given, a class that needs compiled operators which are not installed."""
    for key, node in walk(cfg):
        for name in node.keys():
            unknown = OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name)
            value = None if unknown else node[name]
            found = getattr(value, "__name__", value if isinstance(value, str) else "").rsplit(".", 1)[-1]
            for refusal in _uncompiled(f"{key}.{name}: {found}{where}", found):
                raise refusal


def check_refusals_lazy(cfg: DictConfig) -> None:
    """Raise ``Refusal`` for what does not go together in a LazyConfig, whose ``train`` is complete.

    Two number formats of training; a mapper that keeps ignore regions which a module would not read.
    """
    precision = cfg.train.layers.precision
    if cfg.train.amp.enabled and precision != "float32":
        raise _formats_of_training(f"train.layers.precision: {precision}", "train.amp.enabled: true")
    mapper = cfg.dataloader.train.get("mapper") or {}
    target = _target(mapper, "dataloader.train.mapper")
    if not (isinstance(target, type) and issubclass(target, IgnoreRegionMapper)):
        return
    modules = {f"model.{name}": cfg.model.get(name) for name in ("proposal_generator", "roi_heads")}
    there = {key: _target(node, key) for key, node in modules.items() if node}
    ignoring = [key for key, target in there.items() if _REGIONS not in getattr(target, "reads", ())]
    if ignoring or not there:
        raise Refusal(
            "dataloader.train.mapper: IgnoreRegionMapper", ignoring[0] if ignoring else "model",
            "it would ignore the regions",
            "set model.proposal_generator._target_=BalancedRPN and model.roi_heads._target_=BalancedROIHeads",
        )  # fmt: skip


def _target(node, key):
    return find_target(node._target_, key) if "_target_" in node else None


def _shown(cfg: CfgNode, key: str) -> str:
    return f"{key}: {value_at(cfg, key)}"


def _lacks(cfg: CfgNode, chooser: str) -> str:
    """Which setting leaves the detector without the part that ``chooser`` names; empty where it has one."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    lacking = _PARTS[chooser].lacking if chooser in _PARTS else ()
    if any(is_a(architecture, name, _ARCHITECTURE) for name in lacking):
        return _shown(cfg, _ARCHITECTURE)
    return _shown(cfg, chooser) if value_at(cfg, chooser) == _GIVEN else ""


def _readers() -> Dict[str, Dict[str, List[str]]]:
    """``{settings: {the key that chooses who reads them: names of the readers}}``, of settings that say who does."""
    readers: Dict[str, Dict[str, List[str]]] = {}
    for chooser, registry in CHOOSERS.items():
        for name, target in registry:
            for node in getattr(target, "reads", ()):
                readers.setdefault(node, {}).setdefault(chooser, []).append(name)
    return readers


def _unread(cfg, changes) -> Iterator[Refusal]:
    """Settings with readers: each part that has a reader must be one of them, and there must be such a part."""
    nodes = _readers()
    for key, value in changes.items():
        node = max((node for node in nodes if f"{key}.".startswith(f"{node}.")), key=len, default="")
        there = [chooser for chooser in nodes.get(node, ()) if not _lacks(cfg, chooser)]
        for chooser, names in nodes.get(node, {}).items():
            readers = " or ".join(names)
            if not there:
                reason = f"the detector has no {readers}, and would ignore the setting"
                yield Refusal(f"{key}: {value}", _lacks(cfg, chooser), reason, "leave it out")
            elif chooser in there and value_at(cfg, chooser) not in names:
                remedy = f"set {chooser} to {readers}, or leave it out"
                yield Refusal(f"{key}: {value}", _shown(cfg, chooser), "it would ignore the setting", remedy)


def _without_part(cfg, changes) -> Iterator[Refusal]:
    """detectron2's own choices, and registered heads that are not its own, in a detector without such a part."""
    for chooser, part in _PARTS.items():
        for key in part.settings if _lacks(cfg, chooser) else ():
            if key in changes and not (key in CHOOSERS and _is_detectron2_s(cfg, key)):
                reason = f"the detector has no {part.name}, and would ignore the setting"
                yield Refusal(_shown(cfg, key), _lacks(cfg, chooser), reason, "leave it out")


def _without_anchors(cfg, changes) -> Iterator[Refusal]:
    if is_a(cfg.MODEL.META_ARCHITECTURE, "FCOS", _ARCHITECTURE):
        for key in changes:
            if key.startswith(_OF_ANCHORS):
                reason = "the detector has no anchors and a GIoU loss, and would ignore the setting"
                yield Refusal(_shown(cfg, key), _shown(cfg, _ARCHITECTURE), reason, "leave it out")


def _all_detections(cfg, changes) -> Iterator[Refusal]:
    """At -1 detectron2's ROI heads keep all detections; its dense detectors would cut off the last one."""
    dense = any(is_a(cfg.MODEL.META_ARCHITECTURE, name, _ARCHITECTURE) for name in _DENSE)
    if cfg.TEST.DETECTIONS_PER_IMAGE < 0 and dense:
        reason = "only detectron2's ROI heads keep all detections then; here the last one would be dropped"
        remedy = "give a number, 1 or more"
        yield Refusal(_shown(cfg, "TEST.DETECTIONS_PER_IMAGE"), _shown(cfg, _ARCHITECTURE), reason, remedy)


def _is_detectron2_s(cfg, chooser) -> bool:
    return getattr(registered(chooser, value_at(cfg, chooser)), "__module__", "detectron2").startswith("detectron2")


def _given_proposals(cfg, changes) -> Iterator[Refusal]:
    loads, generator = cfg.MODEL.LOAD_PROPOSALS, _shown(cfg, _GENERATOR)
    lacks = _lacks(cfg, _GENERATOR)
    if loads and lacks != generator:
        remedy = f"only {_GENERATOR}: {_GIVEN} takes them"
        yield Refusal("MODEL.LOAD_PROPOSALS: True", lacks or generator, "it would ignore the given proposals", remedy)
    if not loads and lacks == generator:
        yield Refusal(generator, "MODEL.LOAD_PROPOSALS: False", "there are no proposals", "set the latter to True")


def _own_to_branches(cfg, changes) -> Iterator[Refusal]:
    """What all branches have of their own is not read from the key that is for all of them."""
    branches = cfg.MODEL.BALANCED.BRANCHES
    own = set.intersection(*[set(branch) for branch in branches]) if branches else set()
    for name, node in (("SAMPLER", "MODEL.BALANCED"), ("POSITIVE_FRACTION", "MODEL.ROI_HEADS")):
        for key in (key for key in changes if name in own and f"{key}.".startswith(f"{node}.{name}.")):
            yield Refusal(_shown(cfg, key), "MODEL.BALANCED.BRANCHES", f"every branch has a {name} of its own")


def _cascade(cfg, changes) -> Iterator[Refusal]:
    """detectron2's cascade matches every stage at its own threshold, and reads no others."""
    thresholds, ious = list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS), cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
    if is_a(cfg.MODEL.ROI_HEADS.NAME, "CascadeROIHeads", _HEADS) and thresholds != [ious[0]]:
        reason = f"the first stage is matched at the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS, {ious[0]}"
        yield Refusal(f"MODEL.ROI_HEADS.IOU_THRESHOLDS: {thresholds}", _shown(cfg, _HEADS), reason, "make them equal")


def _box_head(cfg, changes) -> Iterator[Refusal]:
    """A box head that only some ROI heads know how to use says which."""
    chooser, heads = "MODEL.ROI_BOX_HEAD.NAME", cfg.MODEL.ROI_HEADS.NAME
    needed = getattr(registered(chooser, value_at(cfg, chooser)), "needs_heads", "")
    if needed and not _lacks(cfg, _HEADS) and not is_a(heads, needed, _HEADS):
        reason = "its predictor takes one feature for both tasks"
        yield Refusal(_shown(cfg, chooser), _shown(cfg, _HEADS), reason, f"set {_HEADS} to {needed}")


def _mask_pooler(cfg, changes) -> Iterator[Refusal]:
    for key in changes if not cfg.MODEL.MASK_ON else ():
        if key.startswith("MODEL.BALANCED.MASK_POOLER."):
            yield without_masks(_shown(cfg, key))


def _unsupported(cfg, changes) -> Iterator[Refusal]:
    for key, reason in _NOT_SUPPORTED.items():
        if value_at(cfg, key):
            yield Refusal(_shown(cfg, key), "this trainer", reason, "leave it out")
    if cfg.DATALOADER.SAMPLER_TRAIN not in _TRAIN_SAMPLERS:
        sampler = _shown(cfg, "DATALOADER.SAMPLER_TRAIN")
        yield Refusal(sampler, "this trainer", "its data order is exact", f"take {' or '.join(_TRAIN_SAMPLERS)}")


def _two_formats(cfg, changes) -> Iterator[Refusal]:
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.LAYERS.PRECISION != "float32":
        yield _formats_of_training(_shown(cfg, "MODEL.LAYERS.PRECISION"), "SOLVER.AMP.ENABLED: True")


def _formats_of_training(precision: str, amp: str) -> Refusal:
    return Refusal(precision, amp, "both choose the number format of training", "leave one of them at its default")


def _rotated(cfg, changes) -> Iterator[Refusal]:
    for key in (_GENERATOR, _HEADS, *_POOLERS):
        yield from _uncompiled(_shown(cfg, key), value_at(cfg, key))


def _uncompiled(setting, name) -> Iterator[Refusal]:
    if name in _ROTATED and not compat.has_compiled_ops():
        reason = "it is for rotated boxes, and detectron2's compiled operators are not installed"
        remedy = (
            "install the official detectron2, built from source with a C++ compiler and, for a GPU, CUDA (its "
            "INSTALL.md), or take a detector without rotated boxes"
        )
        yield Refusal(setting, "this installation", reason, remedy)


_RULES = (
    _unread, _without_part, _without_anchors, _all_detections, _given_proposals, _own_to_branches, _cascade, _box_head,
    _mask_pooler, _unsupported, _two_formats, _rotated,
)  # fmt: skip
