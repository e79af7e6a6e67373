"""Whose fault is an error that comes out of a constructor: a setting that it refuses, or a bug in its code?

What refuses a setting becomes a ``ConfigError`` that names the setting's key:

- a ``ValueError`` that some line raises on purpose: so components refuse their arguments, and torch its own;
- a ``TypeError`` about an argument of that very call, which a function with ``**kwargs`` has passed on;
- an assertion of detectron2 or fvcore, and a ``KeyError`` of theirs or ours that is about the value of a setting, where
  only libraries' code lies between the config and them; what detectron2's catalogs say of a data set, likewise.

Anything else is a bug, and keeps its traceback: also a ``ValueError`` of an operation, as in ``a, b = (1, 2, 3)``, and
an assertion that a user's own code has led to.
"""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Sequence
from typing import Any, Iterator, List, Mapping, Tuple

import detectron2
import fvcore
import torch

from .errors import ConfigError, UsageError

__all__ = ["constructing"]

_DETECTRON2, _FVCORE, _TORCH, _PYTHON = (os.path.dirname(m.__file__) for m in (detectron2, fvcore, torch, contextlib))
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_REFUSING = (_DETECTRON2, _FVCORE, _OURS)
_LIBRARIES = (*_REFUSING, _TORCH, _PYTHON)
_CATALOG = os.path.join("data", "catalog.py")


@contextlib.contextmanager
def constructing(key: str, settings: Mapping[str, Any], sections: Mapping[str, str] = {}) -> Iterator[None]:
    """Around the call of a constructor that gets settings of a config; see the top of this module.

    Args:
        key: the config key of what is built.
        settings: ``{full key: value}`` of what the constructor gets.
        sections: ``{file of detectron2: config key}``, a closer key for what is raised in that file, or by way of it.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        reason, named = _refusal(error, frames, settings)
        if reason:
            if not reason.startswith(tuple(settings) or "\0"):
                reason = f"{_closest(named, settings, _section(frames, sections) or key)}: {reason}"
            raise ConfigError(reason) from error
        if not hasattr(error, "doing"):  # the innermost tells most
            error.doing = [f"while building {key}"]
        raise


def _refusal(error: Exception, frames, settings: Mapping[str, Any]) -> Tuple[str, list]:
    """``(what is wrong with a setting, what of its key or value the error names)``; ``("", [])`` for a bug."""
    text = str(error)
    if isinstance(error, ValueError) and re.search(r"\braise\b", frames[-1].line or ""):
        return text, _words(text)
    if isinstance(error, TypeError):
        found = re.search(r"unexpected keyword argument '(\w+)'", text)
        refused = [key for key in settings if found and key.lower().endswith(f".{found.group(1)}")]
        return (text, refused) if refused else ("", [])
    last = frames[-1]
    folder = next((folder for folder in _REFUSING if _inside(last.filename, folder)), "")
    if not folder or not all(_of_a_library(frame.filename) for frame in frames):
        return "", []
    place = f"({os.path.relpath(last.filename, os.path.dirname(folder))}, line {last.lineno})"
    if isinstance(error, AssertionError) and folder != _OURS:
        return f"{' '.join(text.split()) or last.line} {place}", _words(text)
    if isinstance(error, KeyError) and _keys_of(error.args[0], settings):
        return f"there is no {error.args[0]!r} {place}", [error.args[0]]
    if os.path.relpath(last.filename, _DETECTRON2) == _CATALOG and isinstance(error, (KeyError, AttributeError)):
        return str(error.args[0]), []
    return "", []


def _words(text: str) -> List[str]:
    return re.findall(r"[\w.-]+", re.sub(r"^\w+: ", "", text))  # without the class that speaks


def _section(frames, sections: Mapping[str, str]) -> str:
    """The section of the innermost file of detectron2 that has one."""
    files = (os.path.relpath(frame.filename, _DETECTRON2).replace(os.sep, "/") for frame in reversed(frames))
    return next((sections[file] for file in files if file in sections), "")


def _closest(named: list, settings: Mapping[str, Any], key: str) -> str:
    """The only setting that is ``named``, below ``key`` or else anywhere; ``key`` if there is none, or several."""
    for candidates in ({k: v for k, v in settings.items() if k.startswith(f"{key}.")}, settings):
        found = {setting for word in named for setting in [*_keys_of(word, candidates), *({word} & {*candidates})]}
        if found:
            return found.pop() if len(found) == 1 else key
    return key


def _keys_of(value: Any, settings: Mapping[str, Any]) -> List[str]:
    """Keys of the settings that are ``value`` or have it among their values."""
    return [key for key, setting in settings.items() if _is_or_has(setting, value)]


def _is_or_has(setting: Any, value: Any) -> bool:
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return any(_is_or_has(each, value) for each in setting)
    return type(setting) is type(value) and setting == value


def _of_a_library(filename: str) -> bool:
    return filename.startswith("<") or any(_inside(filename, folder) for folder in _LIBRARIES)


def _inside(filename: str, folder: str) -> bool:
    """Whether a file lies in a package's folder; what is installed below Python's own folder is not Python's."""
    return filename.startswith(folder + os.sep) and "-packages" not in filename[len(folder) :]
