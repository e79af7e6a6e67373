"""Settings of a yacs config that the chosen detector would not read are refused, naming both sides."""

from __future__ import annotations

from typing import Any, Dict

from detectron2.config import CfgNode

from ..utils.errors import ConfigError
from .detectron2_names import CHOOSERS, is_a, registered

__all__ = ["check_ignored"]

# Settings -> (the key that chooses who reads them, the class that does; its registered subclasses do too).
# The longest matching prefix counts. A registered function says itself what it reads, in its attribute ``reads``.
_READERS = {
    "MODEL.BALANCED.FPN": ("MODEL.BACKBONE.NAME", "a balanced pyramid"),
    "MODEL.BALANCED.CONTEXT": ("MODEL.BACKBONE.NAME", "a backbone with context blocks"),
    "MODEL.BALANCED.RPN": ("MODEL.PROPOSAL_GENERATOR.NAME", "BalancedRPN"),
    "MODEL.BALANCED.RETINANET": ("MODEL.META_ARCHITECTURE", "BalancedRetinaNet"),
    "MODEL.BALANCED": ("MODEL.ROI_HEADS.NAME", "BalancedROIHeads"),
}
# Meta-architectures that have no ROI heads, or neither ROI heads nor a proposal generator, whatever their keys say.
_WITHOUT = {
    "ProposalNetwork": ("MODEL.ROI_HEADS.NAME",),
    "RetinaNet": ("MODEL.ROI_HEADS.NAME", "MODEL.PROPOSAL_GENERATOR.NAME"),
}
# detectron2's own settings that choose something, in a detector that has no such part. Others, such as sizes, may come
# from a base config.
_PARTS = {
    "MODEL.ROI_HEADS.NAME": (
        "ROI heads",
        "MODEL.MASK_ON",
        "MODEL.KEYPOINT_ON",
        "MODEL.ROI_HEADS.IOU_THRESHOLDS",
        "MODEL.ROI_HEADS.IOU_LABELS",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT",
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
        "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
    ),
    "MODEL.PROPOSAL_GENERATOR.NAME": (
        "RPN",
        "MODEL.RPN.BBOX_REG_LOSS_TYPE",
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT",
        "MODEL.RPN.SMOOTH_L1_BETA",
    ),
}
_GIVEN = "PrecomputedProposals"


def check_ignored(cfg: CfgNode, changes: Dict[str, Any]) -> None:
    """Raise ``ConfigError`` for the first of the ``changes``, ``{key: value}``, that nothing in the detector reads."""
    for key, value in changes.items():
        prefix = next((p for p in sorted(_READERS, key=len, reverse=True) if key.startswith(p + ".")), None)
        if prefix is not None:
            _require_reader(cfg, key, value, prefix)
    _check_parts(cfg, changes)
    _check_given_proposals(cfg)
    _check_ignore_regions(cfg)
    _check_branches(cfg, changes)
    _check_cascade_thresholds(cfg)
    pooler = next((key for key in changes if key.startswith("MODEL.BALANCED.MASK_POOLER.")), None)
    if pooler and not cfg.MODEL.MASK_ON:
        raise ConfigError(
            f"{pooler} is set to {changes[pooler]!r}, but there are no masks; set MODEL.MASK_ON, or leave it out."
        )


def _get(cfg: CfgNode, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _require_reader(cfg, key, value, prefix):
    chooser, reader = _READERS[prefix]
    architecture = cfg.MODEL.META_ARCHITECTURE
    if chooser in _lacking(architecture):
        raise ConfigError(
            f"{key} is set to {value!r}, but MODEL.META_ARCHITECTURE: {architecture} would ignore it, as it has no "
            f"{reader}."
        )
    readers = [name for name, target in CHOOSERS[chooser] if prefix in getattr(target, "reads", ())]
    if _get(cfg, chooser) not in readers and not is_a(_get(cfg, chooser), reader, chooser):
        reader = " or ".join(readers) or reader
        raise ConfigError(
            f"{key} is set to {value!r}, but {chooser}: {_get(cfg, chooser)} would ignore it. "
            f"Set {chooser} to {reader}, or leave {key} out."
        )


def _lacking(architecture: str):
    return next((keys for name, keys in _WITHOUT.items() if is_a(architecture, name, "MODEL.META_ARCHITECTURE")), ())


def _check_parts(cfg, changes):
    """detectron2's own choices, and registered heads that are not its own, in a detector without such a part."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    for chooser, (part, *keys) in _PARTS.items():
        who = f"MODEL.META_ARCHITECTURE: {architecture}" if chooser in _lacking(architecture) else ""
        if not who and _get(cfg, chooser) == _GIVEN:
            who = f"{chooser}: {_GIVEN}"
        if chooser == "MODEL.ROI_HEADS.NAME":
            keys += [key for key in ("MODEL.ROI_BOX_HEAD.NAME", "MODEL.ROI_MASK_HEAD.NAME") if _is_foreign(cfg, key)]
        ignored = [key for key in keys if key in changes] if who else []
        if ignored:
            raise ConfigError(
                f"{ignored[0]} is set to {changes[ignored[0]]!r}, but {who} would ignore it, as it has no {part}."
            )


def _is_foreign(cfg, chooser) -> bool:
    module = getattr(registered(chooser, _get(cfg, chooser)), "__module__", "detectron2")
    return not module.startswith("detectron2")


def _check_given_proposals(cfg):
    generator = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    lacks_generator = "MODEL.PROPOSAL_GENERATOR.NAME" in _lacking(cfg.MODEL.META_ARCHITECTURE)
    if cfg.MODEL.LOAD_PROPOSALS and (lacks_generator or generator != _GIVEN):
        name = "META_ARCHITECTURE" if lacks_generator else "PROPOSAL_GENERATOR.NAME"
        raise ConfigError(
            f"MODEL.LOAD_PROPOSALS is set, but MODEL.{name}: {_get(cfg.MODEL, name)} would ignore the given proposals; "
            f"only MODEL.PROPOSAL_GENERATOR.NAME: {_GIVEN} takes them."
        )
    if not cfg.MODEL.LOAD_PROPOSALS and not lacks_generator and generator == _GIVEN:
        raise ConfigError(f"MODEL.PROPOSAL_GENERATOR.NAME: {_GIVEN} needs MODEL.LOAD_PROPOSALS, or there are none.")


def _check_ignore_regions(cfg: CfgNode) -> None:
    lacking = _lacking(cfg.MODEL.META_ARCHITECTURE)
    readers = {"MODEL.PROPOSAL_GENERATOR.NAME": "BalancedRPN", "MODEL.ROI_HEADS.NAME": "BalancedROIHeads"}
    for chooser, reader in readers.items() if cfg.INPUT.IGNORE_REGIONS else ():
        name = _get(cfg, chooser)
        if set(readers) <= set(lacking):
            chooser, name = "MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE
        elif chooser in lacking or name == _GIVEN or is_a(name, reader, chooser):
            continue
        raise ConfigError(
            f"INPUT.IGNORE_REGIONS is set, but {chooser}: {name} would ignore it; it needs "
            f"{' and '.join(readers.values())}."
        )


def _check_branches(cfg, changes):
    """What all branches have of their own is not read from the key that is for all of them."""
    branches = cfg.MODEL.BALANCED.BRANCHES
    own = set.intersection(*[set(branch) for branch in branches]) if branches else set()
    for name, node in (("SAMPLER", "MODEL.BALANCED"), ("POSITIVE_FRACTION", "MODEL.ROI_HEADS")):
        common = f"{node}.{name}"
        changed = [key for key in changes if key == common or key.startswith(common + ".")]
        if name in own and changed:
            raise ConfigError(
                f"{changed[0]} is set to {changes[changed[0]]!r}, but nothing would read it, as every one of "
                f"MODEL.BALANCED.BRANCHES has a {name} of its own; leave one of them out."
            )


def _check_cascade_thresholds(cfg):
    """detectron2's cascade matches every stage at its own threshold, and reads no others."""
    thresholds, ious = list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS), cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
    if is_a(cfg.MODEL.ROI_HEADS.NAME, "CascadeROIHeads", "MODEL.ROI_HEADS.NAME") and thresholds != [ious[0]]:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS is set to {thresholds}, but MODEL.ROI_HEADS.NAME: "
            f"{cfg.MODEL.ROI_HEADS.NAME} matches the first stage at the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS, "
            f"{ious[0]}; make them equal."
        )
