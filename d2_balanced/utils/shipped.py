"""The configs, fragments and projects that come with this package, found by name wherever it is installed.

In a checkout ``configs/`` and ``projects/`` lie beside the package, in an installed one inside it (``setup.py``).
"""

from __future__ import annotations

import functools
import os
from typing import Dict

from .errors import ConfigError, did_you_mean

__all__ = ["ROOT", "find_shipped", "shipped_configs", "shipped_file", "shipped_fragments"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = _PACKAGE if os.path.isdir(os.path.join(_PACKAGE, "configs", "base")) else os.path.dirname(_PACKAGE)
"""The folder that holds ``configs/`` and ``projects/``."""

_DEFAULT = "yaml"  # of a config's two twins, the one that a name without an ending means
_PARTS = ("base", "components")  # folders of fragments: what configs are made of


@functools.lru_cache(maxsize=None)
def _files() -> Dict[str, str]:
    """``{name with its ending: path}`` of everything below ``configs/`` and ``projects/*/configs/``."""
    projects = os.path.join(ROOT, "projects")
    names = sorted(os.listdir(projects)) if os.path.isdir(projects) else []
    found = _below(os.path.join(ROOT, "configs"), "")
    for name in names:
        found.update(_below(os.path.join(projects, name, "configs"), f"{name}/"))
    return found


def _below(folder: str, prefix: str) -> Dict[str, str]:
    found = {}
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        inside = os.path.relpath(path, folder).replace(os.sep, "/")
        where = "" if inside in (".", "components") else f"{inside}/"
        found.update({f"{prefix}{where}{name}": os.path.join(path, name) for name in sorted(files)})
    return found


def _named(fragments: bool) -> Dict[str, str]:
    ending = f".{_DEFAULT}"
    named = {name[: -len(ending)]: path for name, path in _files().items() if name.endswith(ending)}
    return {name: path for name, path in named.items() if _is_fragment(path) == fragments}


def _is_fragment(path: str) -> bool:
    return bool(set(_PARTS) & set(os.path.relpath(path, ROOT).split(os.sep)))


def shipped_configs() -> Dict[str, str]:
    """``{name: path of its yaml file}``, as ``LibraRCNN/libra_faster_rcnn_R_50_FPN_1x``; its twin ends in ``.py``."""
    return _named(fragments=False)


def shipped_fragments() -> Dict[str, str]:
    """The same for what can be added to a config, as ``LibraRCNN/iou_balanced_sampling`` or ``base/schedules/2x``."""
    return _named(fragments=True)


def find_shipped(name: str) -> str:
    """The path of the config or fragment that comes along by this name, as in :func:`shipped_file`; "" for no such."""
    word = name.replace(os.sep, "/")
    shipped = _files().get(f"{word}.{_DEFAULT}") or _files().get(word)
    in_repository = os.path.join(ROOT, *word.split("/"))
    if shipped or word.startswith(("configs/", "projects/")) and os.path.isfile(in_repository):
        return shipped or in_repository
    return ""


def shipped_file(name: str) -> str:
    """The path of the config or fragment that ``name`` stands for: a file that is there, then what comes along.

    What comes along is named as in :func:`shipped_configs`, with an ending (without one: the yaml file), or by its path
    in the repository. A path in a folder that exists is returned as it is, whether or not there is such a file; a word
    alone is none. Raises ``ConfigError`` for any other name, with those that may have been meant.
    """
    if os.path.exists(name) or "://" in name:
        return name
    shipped, folder = find_shipped(name), os.path.dirname(name)
    if shipped or os.path.isdir(folder):
        return shipped or name
    raise ConfigError(
        f"Config file {name!r} does not exist{f' (there is no folder {folder!r})' if folder else ''}, and nothing of "
        f"that name comes with d2_balanced; `d2_balanced configs` lists what does.{_meant(name.replace(os.sep, '/'))}"
    )


def _meant(word: str) -> str:
    """Of a name without a folder also the files that lie here, and what has this name in a folder."""
    shipped = [*shipped_configs(), *shipped_fragments()]
    if "/" in word:
        return did_you_mean(word, shipped)
    same = [name for name in shipped if name.rpartition("/")[2] == os.path.splitext(word)[0]]
    return f" Did you mean {', or '.join(same)}?" if same else did_you_mean(word, [*os.listdir(), *shipped])

