"""A LazyConfig as a run has saved it: a YAML file, in which a class that is a value stands as ``!!python/name:``."""

from __future__ import annotations

from typing import Any, Mapping

import yaml
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, OmegaConf

from ..utils.errors import ConfigError
from ..utils.moved import new_path
from .lazy import check_lazy
from .lazy_targets import find_target
from .yaml_files import PythonObject

__all__ = ["is_saved_lazy", "lazy_of_saved", "lazy_text"]


def lazy_text(cfg: DictConfig) -> str:
    """``cfg`` as the YAML that ``LazyConfig.save`` writes, but with all keys in their order.

    In that order the parts of a model are built, and their random weights drawn: so the saved config gives the same
    ones. Empty where YAML cannot hold it all.
    """
    try:
        content = _with_names(OmegaConf.to_container(cfg, resolve=False))
        text = yaml.dump(content, default_flow_style=None, allow_unicode=True, width=9999, sort_keys=False)
        yaml.unsafe_load(text)  # a try, of our own config
    except Exception:  # whatever an object raises that cannot be written, or read again
        return ""
    return text


def _with_names(value):
    if isinstance(value, dict):
        return {key: _name(item) if key == "_target_" else _with_names(item) for key, item in value.items()}
    return [_with_names(item) for item in value] if isinstance(value, list) else value


def _name(target):
    return target if isinstance(target, str) else _convert_target_to_string(target)


def is_saved_lazy(settings: Mapping[str, Any]) -> bool:
    """Whether the content of a YAML file is a LazyConfig's, not a yacs config's, whose keys are capitals."""
    return "model" in settings and "train" in settings


def lazy_of_saved(settings: Mapping[str, Any], path: str) -> DictConfig:
    """The checked LazyConfig that ``settings``, the content of the file ``path``, were saved from.

    What was moved in this package since is found at its new place. Raises ``ConfigError`` as ``load_lazy`` does, and
    for Python objects other than the names of classes and functions: making them could run any code.
    """
    cfg = OmegaConf.create(_made(settings, "", path), flags={"allow_objects": True})
    check_lazy(cfg, f" in {path}")
    return cfg


def _made(value, key: str, path: str):
    if isinstance(value, dict):
        return {name: _made(item, f"{key}.{name}" if key else str(name), path) for name, item in value.items()}
    if isinstance(value, list):
        return [_made(item, f"{key}.{index}", path) for index, item in enumerate(value)]
    if isinstance(value, PythonObject):
        kind, _, name = value.tag.partition(":")
        if kind != "name":
            raise ConfigError(f"{key} in {path} cannot be read without running code: it is !!python/{value.tag}.")
        return find_target(new_path(name) or name, key)
    if isinstance(value, str) and key.endswith("_target_"):
        return new_path(value) or value
    return value
