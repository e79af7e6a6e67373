"""What the ``_target_`` of a LazyConfig node is, and which arguments it takes."""

from __future__ import annotations

import inspect
import sys
from pydoc import ErrorDuringImport
from typing import Any, Dict, Iterator, List, Tuple

from detectron2 import modeling
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

import d2_balanced.modeling  # noqa: F401  (registers the components)

from ..modeling import registry as ours
from ..modeling.spec import signature_parameters
from ..utils.errors import ConfigError, did_you_mean, shown
from ..utils.moved import new_path
from .imports import importing

__all__ = ["find_target", "target_parameters", "parameters_to_keep", "walk"]


def walk(node, path: str = "") -> Iterator[Tuple[str, DictConfig]]:
    """``(key path, mapping)`` of every mapping in a config, the outer ones first; interpolations are not followed."""
    if isinstance(node, DictConfig):
        yield path, node
        names = list(node.keys())
    else:
        names = range(len(node)) if isinstance(node, ListConfig) else ()
    for name in names:
        if not (OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name)):
            child = node[name]
            if isinstance(child, (DictConfig, ListConfig)):
                yield from walk(child, f"{path}.{name}" if path else str(name))


def _registries() -> list:
    own = [getattr(ours, name) for name in ours.__all__]
    names = ["META_ARCH", "PROPOSAL_GENERATOR", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "BACKBONE"]
    return own + [getattr(modeling, f"{name}_REGISTRY") for name in names]


def _registered() -> Dict[str, Any]:
    return {name: target for registry in reversed(_registries()) for name, target in registry}


def find_target(target, key: str):
    """The class or function that ``target`` names: a dotted path, or a name in one of the registries.

    Raises ``ConfigError`` with ``key`` and similar names where there is no such thing.
    """
    if not isinstance(target, str):
        return _callable(target, key)
    if "." not in target:
        registered = _registered()
        if target in registered:
            return registered[target]
        raise ConfigError(
            f"{key}: nothing is registered as {target!r} (a class that is not registered is named by its full path, "
            f"package.module.Class).{did_you_mean(target, registered)}"
        )
    try:
        return _callable(locate(target), key)
    except ErrorDuringImport as error:
        with importing(key):
            raise error.value from None
    except (ImportError, ValueError) as error:  # the latter for dots without a name between them
        if new_path(target):
            raise ConfigError(f"{key}: {target} was moved: it is {new_path(target)} now.") from error
        found = target.split(".")[0] in sys.modules
        advice = "" if found else " Code of your own is found with PYTHONPATH=<its folder> in front of the command."
        reason, name = " ".join(str(error).split()), target.rsplit(".", 1)[-1]
        raise ConfigError(
            f"{key}: cannot import {target!r} ({reason}).{advice}{did_you_mean(name, _registered())}"
        ) from error


def _callable(target, key: str):
    if not callable(target):
        raise ConfigError(f"{key}: expected a class or function, or the name of one, got {shown(target)}.")
    return target


def target_parameters(node: DictConfig, key: str) -> Dict[str, inspect.Parameter]:
    """The parameters of a node's ``_target_`` by name; empty for a mapping that is no call."""
    if "_target_" not in node.keys():
        return {}
    target = find_target(node["_target_"], f"{key}._target_")
    try:
        return signature_parameters(target)
    except (ValueError, TypeError):  # a builtin without a signature
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def parameters_to_keep(target) -> List[str]:
    """The arguments that survive when a node's ``_target_`` becomes ``target``.

    Those that the new target takes; of a registered component only those that it requires, as it starts from its own
    defaults.
    """
    parameters = signature_parameters(target)
    components = [component for name in ours.__all__ for _, component in getattr(ours, name)]
    if any(target is component for component in components):
        return [name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return list(parameters)
