"""Loading yacs configs strictly: files, their bases, and overrides from the command line."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping
from typing import Any, Dict, Optional, Sequence

import yaml
from detectron2.config import CfgNode

from ..utils.errors import ConfigError, did_you_mean, shown
from ..utils.values import fit_type, type_name
from .defaults import get_balanced_cfg
from .imports import import_modules
from .yaml_files import read_with_bases
from .yaml_loader import BoundedLoader, PythonObject

__all__ = ["load_yaml", "merge_file", "merge_overrides", "flatten", "is_spec", "value_at"]


def is_spec(node) -> bool:
    """Whether ``node`` describes a component: a ``NAME`` and the arguments of its constructor."""
    return isinstance(node, CfgNode) and node.is_new_allowed() and "NAME" in node


def flatten(node: Any, prefix: str = "", lists: bool = False) -> Dict[str, Any]:
    """``{"A.B.C": value}`` of nested mappings; with ``lists`` also ``A.B.0.C`` of lists that hold mappings or lists."""
    flat = {}
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        is_nested = lists and isinstance(value, (list, tuple)) and any(isinstance(x, (Mapping, list)) for x in value)
        if isinstance(value, Mapping) or is_nested:
            flat.update(flatten(value, f"{prefix}{key}.", lists))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def value_at(cfg: CfgNode, key: str):
    """The value of the full key ``A.B.C``."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def load_yaml(
    path: str, opts: Sequence[str] = (), cfg: Optional[CfgNode] = None, *, settings: Optional[Mapping] = None
) -> CfgNode:
    """Load the config file ``path``, then the overrides ``opts`` (``["KEY.PATH", "value", ...]``), over the defaults.

    Strict: a key that does not exist and a value of another type raise ``ConfigError``, which names the key, the file
    and what may have been meant. A spec node takes new keys; where its ``NAME`` changes, the old component's arguments
    are dropped. The modules in ``IMPORTS`` are imported. Call ``check_config`` on the result before building from it.

    Args:
        cfg: the defaults to start from where they are others than ``get_balanced_cfg()`` (changed in place).
        settings: the content of the file, where it has been read (``read_yaml``).
    """
    cfg = get_balanced_cfg() if cfg is None else cfg
    defaults = cfg.clone()
    merge_file(cfg, path, defaults, settings)
    merge_overrides(cfg, opts, defaults)
    import_modules(cfg.get("IMPORTS", ()))
    return cfg


def merge_file(cfg: CfgNode, path: str, defaults: CfgNode, settings: Optional[Mapping] = None) -> None:
    """Merge a file and its bases into ``cfg`` in place, as ``load_yaml`` does; ``settings`` is its content."""
    for file, content in read_with_bases(path, settings):
        version = content.get("VERSION", cfg.VERSION)
        if version != cfg.VERSION:
            raise ConfigError(f"VERSION in {file}: {version} is not supported, only {cfg.VERSION} is.")
        _Merge(defaults, f" in {file}").run(content, cfg)


def merge_overrides(cfg: CfgNode, opts: Sequence[str], defaults: Optional[CfgNode] = None) -> None:
    """Merge overrides ``["KEY.PATH", "value", ...]`` into ``cfg`` in place, as strictly as ``load_yaml``.

    All are merged at once, so ``SAMPLER.NUM_BINS 3 SAMPLER.NAME X`` means the same in either order.
    """
    opts = list(opts or ())
    if len(opts) % 2:
        raise ConfigError(
            f"Overrides of a yaml config are pairs, KEY.PATH VALUE, but an odd number of words was given: {opts}. "
            "(KEY=VALUE is the form for LazyConfig files.)"
        )
    settings: Dict[str, Any] = {}
    for full_key, value in zip(opts[0::2], opts[1::2]):
        _put(settings, full_key.split("."), value, full_key)
    _Merge(cfg.clone() if defaults is None else defaults, " on the command line").run(settings, cfg)


def _put(settings: Dict[str, Any], path: Sequence[str], value, full_key: str) -> None:
    for key in path[:-1]:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{full_key} on the command line: {key} is given a value there as well.")
    settings[path[-1]] = value


def _decode(value, default):
    """What a word stands for: a Python or YAML literal, unless the setting is a string."""
    if not isinstance(value, str):
        return value
    try:
        decoded = literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the last three: too deep
        try:
            decoded = yaml.load(value, Loader=BoundedLoader)
        except yaml.YAMLError:
            return value
    return value if isinstance(default, str) and not isinstance(decoded, str) else decoded


class _Merge:
    """Merges settings from one source into a config, naming the source in errors."""

    def __init__(self, defaults: CfgNode, where: str):
        self.defaults = defaults
        self.where = where

    def run(self, settings: Mapping, cfg: CfgNode) -> None:
        self._merge(settings, cfg, self.defaults, "")

    def _merge(self, settings, node, defaults, prefix):
        if is_spec(node) and settings.get("NAME", node.NAME) != node.NAME:
            node.clear()
        for key, value in settings.items():
            key, full_key = str(key), f"{prefix}{key}"
            value = _decode(value, defaults.get(key))
            self._require_plain(value, full_key)
            if key in defaults:
                self._set(node, key, value, defaults[key], full_key)
            elif node.is_new_allowed():
                node[key] = self._new(value)
            else:
                self._unknown(full_key)

    def _set(self, node, key, value, default, full_key):
        if not isinstance(default, CfgNode):
            node[key] = fit_type(value, default, full_key, self.where)
        elif isinstance(value, Mapping):
            self._merge(value, node[key], default, full_key + ".")
        else:
            raise ConfigError(
                f"{full_key}{self.where}: expected a mapping of {', '.join(default)}, got {type_name(value)} "
                f"{shown(value)}."
            )

    def _require_plain(self, value, full_key):
        """Dates, bytes and the like have no place in a config: it could not be saved."""
        if isinstance(value, Mapping):
            for key, each in value.items():
                self._require_plain(each, f"{full_key}.{key}")
        elif isinstance(value, (list, tuple)) and not isinstance(value, PythonObject):
            for each in value:
                self._require_plain(each, full_key)
        elif value is not None and not isinstance(value, (bool, int, float, str)):
            raise ConfigError(f"{full_key}{self.where}: a config holds no {type_name(value)}, got {shown(value)}.")

    @staticmethod
    def _new(value):
        return CfgNode(dict(value), new_allowed=True) if isinstance(value, Mapping) else value

    def _unknown(self, full_key):
        known = list(flatten(self.defaults))
        raise ConfigError(f"{full_key}{self.where}: there is no such key.{did_you_mean(full_key, known)}")
