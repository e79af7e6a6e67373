"""A fragment, such as ``components/prm.yaml``, added to a LazyConfig by its twin: the function of its name."""

from __future__ import annotations

import ast
import inspect
import os
from glob import escape, glob
from typing import Callable, List

from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..utils.errors import ConfigError, did_you_mean
from .lazy import check_lazy, execute_lazy

__all__ = ["add_lazy_fragment"]


def add_lazy_fragment(cfg: DictConfig, path: str) -> None:
    """Change ``cfg`` in place as the fragment ``path`` does.

    The fragment is the function ``<name of the file>`` of a ``.py`` file in the file's folder. It is called with the
    nodes of the config that its arguments without a default are called after (``model``, ``train``, ``dataloader``,
    ...). What it returns, if anything, is the new ``lr_multiplier``.

    Raises ``ConfigError`` where there is no such function, or it does not fit the config.
    """
    name = os.path.splitext(os.path.basename(path))[0]
    function = _find(os.path.dirname(path) or ".", name, path)
    nodes = {parameter: _node(cfg, parameter, path) for parameter in _required(function)}
    try:
        multiplier = function(**nodes)
    except (AttributeError, OmegaConfBaseException) as error:
        raise ConfigError(f"The fragment {path} does not fit this config: {error}") from error
    if multiplier is not None:
        cfg.lr_multiplier = multiplier
    check_lazy(cfg, f" after the fragment {path}")


def _find(folder: str, name: str, path: str) -> Callable:
    known: List[str] = []
    for file in sorted(glob(os.path.join(escape(folder), "*.py"))):
        with PathManager.open(file, "r") as opened:
            functions = _functions(opened.read())
        if name in functions:
            return execute_lazy(file, (name,))[0]
        known += [each for each in functions if not each.startswith("_")]
    raise ConfigError(
        f"{path} cannot be added to a LazyConfig: no .py file in {folder} has a function {name!r}."
        f"{did_you_mean(name, known)}"
    )


def _functions(code: str) -> List[str]:
    """The names of the functions in a file, which is not executed; empty where it is no Python."""
    try:
        return [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError:
        return []


def _required(function: Callable) -> List[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]


def _node(cfg: DictConfig, name: str, path: str) -> DictConfig:
    if name not in cfg:
        raise ConfigError(f"The fragment {path} changes {name!r}, which this config does not have.")
    return cfg[name]
