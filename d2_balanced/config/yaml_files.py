"""Reading a yaml config, also one that a run has saved, and the files that its ``_BASE_`` names."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

import yaml
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from ..utils.errors import ConfigError, did_you_mean, usage
from ..utils.shipped import find_shipped
from .yaml_loader import BoundedLoader, PythonObject

__all__ = ["PythonObject", "parse_yaml", "read_with_bases", "read_yaml", "require_file"]

MOST_FILES = 100
"""Of a config, with its bases and theirs; a base that several files name counts for each of them."""


def require_file(path: str, named_by: str = "") -> str:
    """``path``, if there is such a file and it can be opened.

    Otherwise ``ConfigError``, with the files of similar names beside it, or the config in a run's folder.
    """
    if PathManager.isfile(path):
        with usage(f"Config file {path!r}", OSError), PathManager.open(path, "rb"):
            return path
    if os.path.isdir(path):
        its = os.path.join(path, "config.yaml")
        raise ConfigError(f"Config file {path!r} is a folder{f'. Did you mean {its}?' if os.path.isfile(its) else '.'}")
    folder = os.path.dirname(path) or "."
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    what = f"{named_by} names the base file {path!r}, which" if named_by else f"Config file {path!r}"
    reason = "does not exist" if os.path.isdir(folder) else f"does not exist (there is no folder {folder!r})"
    raise ConfigError(f"{what} {reason}.{did_you_mean(os.path.basename(path), beside)}")


def read_yaml(path: str) -> Dict[str, Any]:
    """The mapping in a YAML file, without running code; Python objects, but tuples, are :class:`PythonObject`.

    Raises ``ConfigError`` for a missing file, and for one that is not YAML or holds no mapping.
    """
    require_file(path)
    with PathManager.open(path, "r", encoding="utf-8") as file:
        try:
            text = file.read()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not a (safe) YAML file: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: str) -> Dict[str, Any]:
    """The mapping in a YAML text, as :func:`read_yaml`; ``path`` is what the text is called in errors."""
    try:
        settings = yaml.load(text, Loader=BoundedLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not a (safe) YAML file: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, got {type(settings).__name__}.")
    return settings


def read_with_bases(path: str, settings: Optional[Mapping[str, Any]] = None) -> List[Tuple[str, Dict[str, Any]]]:
    """``[(file, its settings), ...]`` in the order in which they are merged: a file's bases come before it.

    ``_BASE_`` is a file or a list of files, relative to the file that names them, or the name of a config or fragment
    that comes along (``utils/shipped.py``), where there is no such file; of a list, later ones win. Raises
    ``ConfigError`` for a missing file, a circle, more than ``MOST_FILES`` files, or a file that is not YAML or asks for
    Python objects.

    Args:
        settings: what :func:`read_yaml` found in ``path``, where it has been read.
    """
    files: List[Tuple[str, Dict[str, Any]]] = []
    _add_with_bases(files, path, settings, ())
    return files


def _add_with_bases(files: list, path: str, settings: Optional[Mapping[str, Any]], chain: Tuple[str, ...]) -> None:
    require_file(path, chain[-1] if chain else "")
    if path in chain:
        raise ConfigError(f"{BASE_KEY} goes in a circle: {' -> '.join(chain + (path,))}.")
    if len(files) + len(chain) >= MOST_FILES:
        raise ConfigError(f"{BASE_KEY} of {chain[0]}: it and its bases are more than {MOST_FILES} files.")
    settings = dict(read_yaml(path) if settings is None else settings)
    _refuse_python(settings, path)
    for base in _bases(settings.pop(BASE_KEY, []), path):
        _add_with_bases(files, _base_file(base, path), None, chain + (path,))
    files.append((path, settings))


def _base_file(base: str, path: str) -> str:
    beside = os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(base)))
    return beside if PathManager.isfile(beside) else find_shipped(base) or beside


def _bases(value, path: str) -> List[str]:
    bases = value if isinstance(value, list) else [value]
    if not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{BASE_KEY} in {path}: expected a file or a list of files, got {value!r}.")
    return bases


def _refuse_python(value, path: str) -> None:
    if isinstance(value, PythonObject):
        raise ConfigError(f"{path} is not a (safe) YAML file: it asks for a Python object, !!python/{value.tag}.")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_python(item, path)
