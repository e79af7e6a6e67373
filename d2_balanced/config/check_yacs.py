"""Checks of a complete yacs config, before anything is built or read."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from detectron2.config import CfgNode, get_cfg

from ..modeling import registry
from ..modeling.spec import check_spec
from ..utils.errors import ConfigError, did_you_mean
from ..utils.numbers import check_ranges, require_finite
from ..utils.values import fit_type, type_name
from . import choices
from .defaults import get_balanced_cfg
from .detectron2_names import CHOOSERS, registered
from .ranges import YACS
from .refusals import check_refusals
from .yacs import flatten, is_spec, value_at

__all__ = ["check_config", "describe_changes", "changed_settings", "spec_registries"]

_BRANCHES = "MODEL.BALANCED.BRANCHES"
_BRANCH_KEYS = ("POSITIVE_FRACTION", "BATCH_SIZE_PER_IMAGE", "SAMPLER")
_HEADS = get_cfg().MODEL.ROI_HEADS


def changed_settings(cfg: CfgNode, defaults: Optional[CfgNode] = None) -> Dict[str, Any]:
    """``{"KEY.PATH": value}`` of the settings that differ from the ``defaults`` (``get_balanced_cfg()``)."""
    before = flatten(get_balanced_cfg() if defaults is None else defaults)
    nothing = object()
    return {key: value for key, value in flatten(cfg).items() if before.get(key, nothing) != value}


def describe_changes(cfg: CfgNode, defaults: Optional[CfgNode] = None) -> str:
    """One line per setting that is not at its default, sorted; for the log at the start of a run."""
    changes = changed_settings(cfg, defaults)
    return "\n".join(f"{key}: {changes[key]!r}" for key in sorted(changes)) or "(all settings at their defaults)"


def check_config(cfg: CfgNode, defaults: Optional[CfgNode] = None) -> None:
    """Check a complete config; raises ``ConfigError`` at the first thing that is wrong.

    - keys that are not among the ``defaults``: attributes set by mistake (``cfg.MODEL_WEIGHTS = ...`` makes a new key);
    - values of another type than the default's, and numbers that are not finite or out of range (``ranges.py``);
    - names that no registry of detectron2 knows, and choices that detectron2 itself looks at only in training;
    - spec nodes whose component does not exist or does not have such an argument;
    - settings that do not go together, or that nothing would read (``refusals.py``).

    Args:
        defaults: the keys that may be set, where they are others than ``get_balanced_cfg()``.
    """
    defaults = get_balanced_cfg() if defaults is None else defaults
    _check_keys(cfg, defaults, "", list(flatten(defaults)))
    check_ranges({key: value for key, value in flatten(cfg).items() if key in YACS}, YACS)
    if not cfg.INPUT.MIN_SIZE_TRAIN:
        raise ConfigError("INPUT.MIN_SIZE_TRAIN: give one size or more.")
    choices.check_choices({key: value_at(cfg, key) for key in choices.YACS}, choices.YACS)
    for chooser in CHOOSERS:
        registered(chooser, value_at(cfg, chooser))
    for index, branch in enumerate(cfg.MODEL.BALANCED.BRANCHES):
        _check_branch(branch, f"{_BRANCHES}[{index}]")
    check_refusals(cfg, changed_settings(cfg, defaults))
    for key, components in spec_registries().items():
        node = value_at(cfg, key)
        if node.get("NAME"):
            check_spec(components, node, key)


def spec_registries() -> Dict[str, Any]:
    """``{full key of a spec node: the registry of its component}``."""
    return {
        "MODEL.BALANCED.MATCHER": registry.PROPOSAL_MATCHER_REGISTRY,
        "MODEL.BALANCED.SAMPLER": registry.PROPOSAL_SAMPLER_REGISTRY,
        "MODEL.BALANCED.CLS_LOSS": registry.CLS_LOSS_REGISTRY,
        "MODEL.BALANCED.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
        "MODEL.BALANCED.BOX_CODER": registry.BOX_CODER_REGISTRY,
        "MODEL.BALANCED.EXTRA_PROPOSALS": registry.EXTRA_PROPOSALS_REGISTRY,
        "MODEL.BALANCED.SAMPLE_WEIGHTS": registry.SAMPLE_WEIGHTS_REGISTRY,
        "MODEL.BALANCED.STAGES": registry.STAGES_REGISTRY,
        "MODEL.BALANCED.IOU_BRANCH": registry.IOU_BRANCH_REGISTRY,
        "MODEL.BALANCED.MASKS": registry.MASK_BRANCH_REGISTRY,
        "MODEL.BALANCED.MASK_IOU_HEAD": registry.MASK_IOU_HEAD_REGISTRY,
        "MODEL.BALANCED.BOX_POOLER": registry.POOLER_REGISTRY,
        "MODEL.BALANCED.MASK_POOLER": registry.POOLER_REGISTRY,
        "MODEL.BALANCED.NMS": registry.NMS_REGISTRY,
        "MODEL.BALANCED.RPN.SAMPLER": registry.PROPOSAL_SAMPLER_REGISTRY,
        "MODEL.BALANCED.RPN.CLS_LOSS": registry.CLS_LOSS_REGISTRY,
        "MODEL.BALANCED.RPN.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
        "MODEL.BALANCED.RETINANET.CLS_LOSS": registry.CLS_LOSS_REGISTRY,
        "MODEL.BALANCED.RETINANET.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
        "MODEL.BALANCED.RETINANET.NMS": registry.NMS_REGISTRY,
    }


def _check_keys(node: CfgNode, defaults: CfgNode, prefix: str, known) -> None:
    for key, value in node.items():
        full_key = f"{prefix}{key}"
        if key not in defaults:
            if not defaults.is_new_allowed() and not key.startswith("COMPUTED_"):
                raise ConfigError(
                    f"{full_key}: there is no such key; it was set as an attribute (cfg.{full_key} = {value!r}), and "
                    f"nothing reads it.{did_you_mean(full_key, known)}"
                )
            if not is_spec(defaults):  # a component's arguments are checked against its constructor
                require_finite(value, full_key)
        elif isinstance(defaults[key], CfgNode) and isinstance(value, CfgNode):
            _check_keys(value, defaults[key], full_key + ".", known)
        else:
            fit_type(value, defaults[key], full_key)
            if full_key not in YACS and full_key != _BRANCHES:
                require_finite(value, full_key, defaults[key])


def _check_branch(branch, key: str) -> None:
    _require_mapping(branch, key, ", ".join(_BRANCH_KEYS))
    for name in branch:
        if name not in _BRANCH_KEYS:
            raise ConfigError(
                f"{key}.{name}: a branch has no such setting, only {', '.join(_BRANCH_KEYS)}."
                + did_you_mean(str(name), _BRANCH_KEYS)
            )
    if "SAMPLER" in branch:
        _require_mapping(branch["SAMPLER"], f"{key}.SAMPLER", "NAME and its arguments")
        check_spec(registry.PROPOSAL_SAMPLER_REGISTRY, branch["SAMPLER"], f"{key}.SAMPLER")
    for name in {*branch} - {"SAMPLER"}:  # what a branch has of its own of detectron2's settings
        own, default = f"{key}.{name}", _HEADS[name]
        check_ranges({own: fit_type(branch[name], default, own)}, {own: YACS[f"MODEL.ROI_HEADS.{name}"]})


def _require_mapping(value, key: str, of: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected a mapping of {of}, got {type_name(value)} {value!r}.")
