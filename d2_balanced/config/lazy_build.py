"""detectron2's ``instantiate`` with the key of the node in its errors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Dict, Iterator

from detectron2.config import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..modeling.spec import missing_arguments
from ..utils.constructing import constructing
from ..utils.errors import ConfigError, Refusal
from .lazy_targets import find_target, target_parameters

__all__ = ["build_node", "reading", "with_values"]


def build_node(node: Any, key: str) -> Any:
    """What ``node`` describes, the nodes inside it built first; ``key`` is its path in the config.

    Equal to detectron2's ``instantiate(node)``. Raises ``ConfigError``, beginning with the key of the innermost node,
    for an argument that is missing or that the target refuses (:mod:`..utils.constructing`), and for values that lead
    nowhere (``???``, ``${no.such.key}``).
    """
    if isinstance(node, ListConfig):
        with reading(key):
            elements = list(node)
        built = [build_node(element, f"{key}.{index}") for index, element in enumerate(elements)]
        return ListConfig(built, flags={"allow_objects": True})
    if not (isinstance(node, Mapping) and "_target_" in node):
        return instantiate(node)
    with reading(key):
        values = dict(node.items())
    arguments = {name: build_node(value, f"{key}.{name}") for name, value in values.items()}
    _require_all(node, arguments, key)
    try:
        with constructing(key, {f"{key}.{name}": value for name, value in arguments.items() if name != "_target_"}):
            return instantiate(arguments)
    except Refusal as error:
        if not error.one.startswith(key):  # an inner node's key begins with this one
            error.one = f"{key}: {error.one}"
        raise


def _require_all(node: Mapping, arguments: Dict[str, Any], key: str) -> None:
    missing = missing_arguments(target_parameters(node, key), arguments)
    if missing:
        target = find_target(node["_target_"], key)
        name = getattr(target, "__qualname__", target)
        raise ConfigError(f"{key}: {name} needs {', '.join(f'{key}.{argument}' for argument in missing)}.")


@contextlib.contextmanager
def reading(key: str) -> Iterator[None]:
    """What OmegaConf raises about a value below ``key`` that is missing or leads nowhere becomes a ``ConfigError``."""
    try:
        yield
    except OmegaConfBaseException as error:
        text = (error.msg or str(error)).splitlines()[0]
        raise ConfigError(f"{error.full_key or key}: {text}.") from error


@contextlib.contextmanager
def with_values(node: DictConfig, values: Dict[str, Any]) -> Iterator[None]:
    """Gives ``node`` other values for a while; then it has its own again, be they interpolations, or none."""
    before = OmegaConf.to_container(node, resolve=False)
    node.update(values)
    try:
        yield
    finally:
        node.update({name: before[name] for name in values if name in before})
        for name in values.keys() - before.keys():
            del node[name]
