"""Loading LazyConfig files and overriding them strictly."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional, Tuple

from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..modeling.spec import is_open_ended
from ..utils.errors import ConfigError, did_you_mean
from ..utils.numbers import check_ranges
from ..utils.values import fit_type, require_finite_argument, type_name
from . import choices
from .imports import importing
from .lazy_defaults import data_defaults, train_defaults
from .lazy_targets import find_target, parameters_to_keep, target_parameters, walk
from .ranges import ARGUMENTS, TRAIN
from .refusals import check_compiled_lazy
from .yacs import flatten
from .yaml_files import require_file

__all__ = ["load_lazy", "apply_overrides", "check_lazy", "execute_lazy"]


def load_lazy(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Execute the LazyConfig file ``path`` and apply ``overrides`` (``["key.path=value", ...]``, with Hydra's values).

    Raises ``ConfigError`` for a missing file and for what :func:`apply_overrides` and :func:`check_lazy` refuse.
    """
    require_file(path)
    cfg = execute_lazy(path)
    check_lazy(cfg, f" in {path}")
    if overrides:
        apply_overrides(cfg, overrides)
        check_lazy(cfg)
    return cfg


def execute_lazy(path: str, keys: Optional[Tuple[str, ...]] = None):
    """What the file ``path`` defines: its config, or the values of ``keys``. Raises as ``importing`` does."""
    plain_import = builtins.__import__
    try:
        with importing(path):
            return LazyConfig.load(path, keys)
    finally:
        builtins.__import__ = plain_import  # detectron2 leaves its own in place if the file raises


def check_lazy(cfg: DictConfig, where: str = "") -> None:
    """Check a LazyConfig: every node's arguments, and the plain settings in ``train`` and ``data``.

    Numbers have to be finite, and in their range where they have one (``ranges.py``), words one of their choices
    (``choices.py``). Rotated boxes are refused where
    detectron2 has no compiled operators.
    Raises ``ConfigError`` with the key and what may have been meant.
    """
    for key, node in walk(cfg):
        parameters = target_parameters(node, key)
        if "_target_" in node.keys() and not is_open_ended(parameters):  # a class may have no arguments at all
            _check_arguments(node, key, parameters, where)
        _check_values(node, key, parameters, where)
    check_compiled_lazy(cfg, where)
    for section, defaults in (("train", train_defaults()), ("data", data_defaults())):
        settings = _plain_settings(OmegaConf.to_container(cfg[section], resolve=False)) if section in cfg else {}
        known = [f"{section}.{key}" for key in _plain_settings(defaults)]
        for key in settings:
            if f"{section}.{key}" not in known:
                suggestion = did_you_mean(f"{section}.{key}", known)
                raise ConfigError(f"{section}.{key}{where}: there is no such setting.{suggestion}")
        if section == "train":
            check_ranges({key: settings.get(key[len("train.") :]) for key in TRAIN}, TRAIN, where)


def _check_arguments(node: DictConfig, key: str, parameters, where: str) -> None:
    for argument in node.keys():
        if argument != "_target_" and argument not in parameters:
            name = getattr(find_target(node._target_, key), "__qualname__", node._target_)
            raise ConfigError(
                f"{key}.{argument}{where}: {name} has no argument {argument!r}.{did_you_mean(argument, parameters)}"
            )


def _check_values(node: DictConfig, key: str, parameters, where: str) -> None:
    """Numbers and words among a node's own values; an interpolation is checked where it leads to, an inner node by itself."""
    known = bool(parameters) and _is_known(find_target(node._target_, key))
    ranges, words = (ARGUMENTS, choices.ARGUMENTS) if known else ({}, {})
    for name in node.keys():
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        value, full_key = node[name], f"{key}.{name}" if key else str(name)
        if isinstance(value, ListConfig):
            elements = OmegaConf.to_container(value, resolve=False)
            value = [element for element in elements if not isinstance(element, Mapping)]
        elif isinstance(value, Mapping):
            continue
        if name in ranges:
            check_ranges({full_key: value}, {full_key: ranges[name]}, where)
        elif name in words:
            choices.check_choices({full_key: value}, {full_key: words[name]}, where)
        elif full_key not in TRAIN:
            require_finite_argument(value, parameters.get(name), full_key, where)


def _is_known(target) -> bool:
    """Whether the names of the target's arguments mean what they do in detectron2."""
    return getattr(target, "__module__", "").split(".")[0] in ("d2_balanced", "detectron2", "fvcore", "torch")


def _plain_settings(section: Mapping) -> Dict[str, Any]:
    """``{"a.b": value}`` of a section; nodes, whose arguments are checked against their targets, are values."""
    nodes = {name: value for name, value in section.items() if isinstance(value, Mapping) and "_target_" in value}
    return {**flatten({name: value for name, value in section.items() if name not in nodes}), **nodes}


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Override settings of ``cfg`` in place, strictly; the order of the overrides does not matter.

    - A key must exist, or be an argument of the ``_target_`` of its node.
    - A value must have the type of the old one, where that tells; ``dataset.names`` is a name or a list of names.
    - ``node._target_=`` takes a dotted path or a registered name, and drops arguments of the old target: those that
      the new one does not take; of a registered component (matcher, sampler, loss, ...) all that it does not require.

    Raises ``ConfigError`` with the key, the value and what may have been meant.
    """
    settings = _parse(overrides)
    # Targets first, the outer ones before the inner ones: they decide which other keys exist.
    targets = sorted((s for s in settings if s[0][-1] == "_target_"), key=lambda s: len(s[0]))
    for path, value in targets + [s for s in settings if s[0][-1] != "_target_"]:
        _Override(cfg, path).set(value)


def _parse(overrides: Sequence[str]) -> List[Tuple[List[str], Any]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    settings: List[Tuple[List[str], Any]] = []
    for text in overrides or ():
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except OverrideParseException as error:
            raise ConfigError(
                f"Override {text!r} is not of the form key.path=value (KEY.PATH VALUE is that of yaml configs; a text "
                f"with blanks or signs has quotes of its own, 'key.path=\"my text\"'): {error}"
            ) from error
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"Override {text!r}: neither deletions (~key) nor sweeps (a,b) are supported.")
        path = re.sub(r"\[(\d+)\]", r".\1", override.key_or_group).split(".")
        settings += _leaves(path, override.value())
    return settings


def _leaves(path: List[str], value) -> List[Tuple[List[str], Any]]:
    """A mapping given as the value sets each of its keys."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(path + [str(key)], inner)]
    return [(path, None if value == "None" else value)]  # Hydra reads `null` as None, and `None` as a word


class _Override:
    """One override: the key path ``path`` in ``cfg``."""

    def __init__(self, cfg: DictConfig, path: List[str]):
        self.cfg = cfg
        self.path = path
        self.key = ".".join(path)

    def set(self, value) -> None:
        """Set the value at the end of the path; a ``_target_`` also drops the old arguments."""
        node = self.cfg
        for depth in range(len(self.path) - 1):
            node = self._step(node, depth)
        last = len(self.path) - 1
        parameter = self._find(node, last)
        if self.path[-1] == "_target_":
            return self._retarget(node, value)
        name = int(self.path[-1]) if isinstance(node, ListConfig) else self.path[-1]
        node[name] = self._fit(value, node, name, parameter)

    def _step(self, node, depth: int):
        """The child of ``node`` that the path enters."""
        self._find(node, depth)
        name = int(self.path[depth]) if isinstance(node, ListConfig) else self.path[depth]
        child = _old_value(node, name)
        if child is None and self.path[depth + 1] == "_target_":
            node[name] = DictConfig({}, flags={"allow_objects": True})
            child = node[name]
        if not isinstance(child, (DictConfig, ListConfig)):
            inside = ".".join(self.path[: depth + 1])
            raise ConfigError(f"{self.key}: {inside} is {child!r}, which has no settings inside.")
        return child

    def _find(self, node, depth: int) -> Optional[inspect.Parameter]:
        """Check that ``path[depth]`` may be set in ``node``; returns the target's parameter of that name, if any."""
        name, inside = self.path[depth], ".".join(self.path[:depth])
        if isinstance(node, ListConfig):
            if not name.isdigit() or int(name) >= len(node):
                raise ConfigError(f"{self.key}: {inside} is a list of {len(node)}; {name!r} is not one of its indices.")
            return None
        parameters = target_parameters(node, inside)
        if name in node.keys() or name in parameters or name == "_target_" or is_open_ended(parameters):
            return parameters.get(name)
        raise ConfigError(f"{self.key}: there is no such key.{self._suggest(inside, parameters)}")

    def _suggest(self, inside: str, parameters) -> str:
        known = [f"{inside}.{name}" if inside else name for name in parameters]
        for path, node in walk(self.cfg):
            known += [f"{path}.{key}" if path else str(key) for key in node.keys() if key != "_target_"]
        return did_you_mean(self.key, known)

    def _retarget(self, node, value) -> None:
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{self.key}: a list has no _target_.")
        target = find_target(value, self.key)
        if "_target_" in node.keys() and find_target(node._target_, self.key) is target:
            return
        keep = parameters_to_keep(target)
        for argument in [key for key in node.keys() if key != "_target_" and key not in keep]:
            del node[argument]
        node._target_ = target

    def _fit(self, value, node, name, parameter: Optional[inspect.Parameter]):
        """``value``, if it has the type of the old value or, for a new argument, of the default."""
        if value is None and parameter is not None and parameter.default is None:
            return None
        if isinstance(value, str) and value.startswith("${"):
            return value
        if self.path[-2:] == ["dataset", "names"]:  # of registered data sets: one, or a list
            return fit_type(value, "" if isinstance(value, str) else [""], self.key)
        expected = _expected(node, name, parameter)
        if isinstance(expected, Mapping):
            if value is None:
                return None
            raise ConfigError(f"{self.key}: expected a mapping or null, got {type_name(value)} {value!r}.")
        if isinstance(expected, (bool, int, float, str, list, tuple)):
            return fit_type(value, expected, self.key)
        return value


def _expected(node, name, parameter: Optional[inspect.Parameter]):
    """A value of the type that a setting has; None where nothing tells."""
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    annotation = "" if parameter is None else getattr(parameter.annotation, "__name__", str(parameter.annotation))
    if isinstance(node, DictConfig) and name not in node.keys():
        # An Optional or a Union: the default's type does not tell.
        return default if annotation in ("bool", "int", "float", "str", "_empty") else None
    old = _old_value(node, name)
    if isinstance(old, ListConfig):
        elements = OmegaConf.to_container(old, resolve=True)
        return [] if any(isinstance(element, Mapping) for element in elements) else elements
    if type(old) is int and (isinstance(default, float) or annotation == "float"):
        return float(old)
    return old


def _old_value(node, name):
    """The value at ``name``, or None where there is none or it is an interpolation that leads nowhere."""
    try:
        return node[name] if isinstance(node, ListConfig) else node.get(name)
    except OmegaConfBaseException:
        return None
