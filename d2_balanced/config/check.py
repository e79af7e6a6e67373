"""Checks of a complete yacs config, before anything is built or read."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from detectron2 import modeling
from detectron2.config import CfgNode

from .compiled_ops import check_compiled_ops
from .defaults import get_balanced_cfg
from .spec import call_arguments, check_spec, registered_names
from .suggestions import ConfigError, did_you_mean
from .values import check_minimum, fit_type
from .yacs import flatten, is_spec

__all__ = ["annealing_settings", "check_config", "describe_changes", "changed_settings", "spec_registries"]

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
# Keys that name a class or function in a registry of detectron2: the registry.
_CHOOSERS = {
    "MODEL.META_ARCHITECTURE": modeling.META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": modeling.BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": modeling.PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": modeling.RPN_HEAD_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": modeling.ANCHOR_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": modeling.ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": modeling.ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": modeling.ROI_MASK_HEAD_REGISTRY,
}
# Names of detectron2 for having nothing there.
_NOTHING = {"MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals", "MODEL.ROI_BOX_HEAD.NAME": ""}
_MINIMUM = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.ACCUMULATE": 1,
    "SOLVER.LOG_PERIOD": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.MAX_TO_KEEP": 0,
    "ANALYSIS.PERIOD": 1,
    "ANALYSIS.GRADIENT_PERIOD": 0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PATIENCE": 0,
    "TEST.DETECTIONS_PER_IMAGE": 1,
}
_BRANCH_KEYS = ("POSITIVE_FRACTION", "BATCH_SIZE_PER_IMAGE", "SAMPLER")


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
    - values of another type than the default's, or below what makes sense (iterations, periods);
    - names that no registry of detectron2 knows;
    - spec nodes whose component does not exist or does not have such an argument;
    - deformable convolutions without detectron2's compiled operators;
    - settings below ``MODEL.BALANCED`` that the chosen ROI heads, proposal generator or meta-architecture ignores.

    Args:
        defaults: the keys that may be set, where they are others than ``get_balanced_cfg()``.
    """
    defaults = get_balanced_cfg() if defaults is None else defaults
    _check_keys(cfg, defaults, "", list(flatten(defaults)))
    check_minimum({key: _get(cfg, key) for key in _MINIMUM}, _MINIMUM)
    for chooser in _CHOOSERS:
        _registered(chooser, _get(cfg, chooser))
    _check_ignored(cfg, defaults)
    for key, registry in spec_registries().items():
        node = _get(cfg, key)
        if node.get("NAME"):
            check_spec(registry, node, key)
    check_compiled_ops(cfg)
    _check_annealing(cfg)
    _check_ignore_regions(cfg)
    for index, branch in enumerate(cfg.MODEL.BALANCED.BRANCHES):
        _check_branch(branch, f"MODEL.BALANCED.BRANCHES[{index}]")


def _get(cfg: CfgNode, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def spec_registries() -> Dict[str, Any]:
    """``{full key of a spec node: the registry of its component}``."""
    # Imported when called: the modules that register the components import this package.
    import d2_balanced.modeling  # noqa: F401
    from d2_balanced.modeling import registry

    return {
        "MODEL.BALANCED.MATCHER": registry.PROPOSAL_MATCHER_REGISTRY,
        "MODEL.BALANCED.SAMPLER": registry.PROPOSAL_SAMPLER_REGISTRY,
        "MODEL.BALANCED.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
        "MODEL.BALANCED.STAGES": registry.STAGES_REGISTRY,
        "MODEL.BALANCED.IOU_BRANCH": registry.IOU_BRANCH_REGISTRY,
        "MODEL.BALANCED.MASKS": registry.MASK_BRANCH_REGISTRY,
        "MODEL.BALANCED.MASK_IOU_HEAD": registry.MASK_IOU_HEAD_REGISTRY,
        "MODEL.BALANCED.RPN.SAMPLER": registry.PROPOSAL_SAMPLER_REGISTRY,
        "MODEL.BALANCED.RPN.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
        "MODEL.BALANCED.RETINANET.BOX_LOSS": registry.BOX_LOSS_REGISTRY,
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
        elif isinstance(defaults[key], CfgNode) and isinstance(value, CfgNode):
            _check_keys(value, defaults[key], full_key + ".", known)
        else:
            fit_type(value, defaults[key], full_key)


def _check_ignored(cfg: CfgNode, defaults: CfgNode) -> None:
    for key, value in changed_settings(cfg, defaults).items():
        prefix = next((p for p in sorted(_READERS, key=len, reverse=True) if key.startswith(p + ".")), None)
        if prefix is None:
            continue
        chooser, reader = _READERS[prefix]
        architecture = cfg.MODEL.META_ARCHITECTURE
        if chooser in _lacking(architecture):
            raise ConfigError(
                f"{key} is set to {value!r}, but MODEL.META_ARCHITECTURE: {architecture} would ignore it, as it has no "
                f"{reader}."
            )
        readers = [name for name, target in _CHOOSERS[chooser] if prefix in getattr(target, "reads", ())]
        if _get(cfg, chooser) not in readers and not _is_a(_get(cfg, chooser), reader, chooser):
            reader = " or ".join(readers) or reader
            raise ConfigError(
                f"{key} is set to {value!r}, but {chooser}: {_get(cfg, chooser)} would ignore it. "
                f"Set {chooser} to {reader}, or leave {key} out."
            )


def _lacking(architecture: str):
    return next((keys for name, keys in _WITHOUT.items() if _is_a(architecture, name, "MODEL.META_ARCHITECTURE")), ())


def _registered(chooser: str, name: str):
    """What ``name``, the value of the key ``chooser``, stands for in detectron2's registries."""
    import d2_balanced.modeling  # noqa: F401

    registry = _CHOOSERS[chooser]
    if name == _NOTHING.get(chooser):
        return None
    if name not in registry:
        suggestion = did_you_mean(name, registered_names(registry))
        raise ConfigError(f"{chooser}: nothing is registered as {name!r}.{suggestion}")
    return registry.get(name)


def _is_a(name: str, reader: str, chooser: str) -> bool:
    """Whether ``name``, the value of the key ``chooser``, is the class ``reader`` or one derived from it."""
    bases = getattr(_registered(chooser, name), "__mro__", ())
    return name == reader or any(base.__name__ == reader for base in bases)


def annealing_settings(cfg: CfgNode) -> Dict[str, Any]:
    """The arguments of ``GradientAnnealing`` in ``cfg.SOLVER.GRADIENT_ANNEALING``; ``ConfigError`` for unknown ones."""
    from d2_balanced.engine.gradient_annealing import GradientAnnealing

    key = "SOLVER.GRADIENT_ANNEALING"
    return call_arguments(GradientAnnealing, cfg.SOLVER.GRADIENT_ANNEALING, key, taken=["model"])


def _check_annealing(cfg: CfgNode) -> None:
    from d2_balanced.engine.gradient_annealing import annealing_hooks

    try:
        annealing_hooks(annealing_settings(cfg), "SOLVER.GRADIENT_ANNEALING")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_ignore_regions(cfg: CfgNode) -> None:
    lacking = _lacking(cfg.MODEL.META_ARCHITECTURE)
    readers = {"MODEL.PROPOSAL_GENERATOR.NAME": "BalancedRPN", "MODEL.ROI_HEADS.NAME": "BalancedROIHeads"}
    for chooser, reader in readers.items() if cfg.INPUT.IGNORE_REGIONS else ():
        name = _get(cfg, chooser)
        if set(readers) <= set(lacking):
            chooser, name = "MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE
        elif chooser in lacking or name == "PrecomputedProposals" or _is_a(name, reader, chooser):
            continue
        raise ConfigError(
            f"INPUT.IGNORE_REGIONS is set, but {chooser}: {name} would ignore it; it needs "
            f"{' and '.join(readers.values())}."
        )


def _check_branch(branch, key: str) -> None:
    if not isinstance(branch, Mapping):
        raise ConfigError(f"{key}: expected a mapping of {', '.join(_BRANCH_KEYS)}, got {branch!r}.")
    for name in branch:
        if name not in _BRANCH_KEYS:
            raise ConfigError(
                f"{key}.{name}: a branch has no such setting, only {', '.join(_BRANCH_KEYS)}."
                + did_you_mean(name, _BRANCH_KEYS)
            )
    if "SAMPLER" in branch:
        from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY

        check_spec(PROPOSAL_SAMPLER_REGISTRY, branch["SAMPLER"], f"{key}.SAMPLER")
