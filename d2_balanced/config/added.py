"""Several fragments on one config: a seat that two of them choose a component for, and settings that one takes from another."""

from __future__ import annotations

import logging
from typing import Any, Dict, Set

from ..utils.errors import ConfigError

__all__ = ["Additions"]

logger = logging.getLogger(__name__)

_CHOOSES = ("NAME", "_target_")
_ABSENT = object()
_HEADS = "model.roi_heads"
_COPIES = {"branches": ("box_head", "box_predictor", "proposal_sampler"), "iou_branch": ("box_head",)}
"""What of a LazyConfig's ROI heads is copied into which other node of theirs; a yacs config has one key for both."""


class Additions:
    """Remembers what every fragment sets, and compares it with what those before it have set.

    ``ConfigError`` where two choose different components for one seat: the last would replace the first, and the first's
    other settings would stay; and where one changes what the parallel branches or the IoU branch of a LazyConfig are already
    copies of. A plain setting that another fragment changes is warned of.
    """

    def __init__(self):
        self._set_by: Dict[str, str] = {}

    def check(self, name: str, before: Dict[str, Any], after: Dict[str, Any]) -> None:
        """Compare the flat settings before and after the fragment ``name`` was added."""
        changed = {key for key in before.keys() | after.keys() if before.get(key, _ABSENT) != after.get(key, _ABSENT)}
        _check_copies(name, before, changed)
        taken = sorted(key for key in changed if key in self._set_by)
        for key in taken:
            if key.rpartition(".")[2] in _CHOOSES and key in before and key in after:
                raise ConfigError(
                    f"--add {self._set_by[key]} and --add {name} both set {key}, to {_shown(before[key])} and "
                    f"{_shown(after[key])}: there is one seat for both. Leave one of them out, or set what you want of it by "
                    "its keys."
                )
        for key in taken:
            logger.warning("--add %s had set %s to %s; with --add %s it is %s.", self._set_by[key], key,
                           _shown(before.get(key, _ABSENT)), name, _shown(after.get(key, _ABSENT)))
        self._set_by.update(dict.fromkeys(changed, name))


def _check_copies(name: str, before: Dict[str, Any], changed: Set[str]) -> None:
    for copy, parts in _COPIES.items():
        prefix = f"{_HEADS}.{copy}."
        has_copy, changes_copy = (any(key.startswith(prefix) for key in keys) for keys in (before, changed))
        originals = sorted(key for key in changed if key.startswith(tuple(f"{_HEADS}.{part}." for part in parts)))
        if originals and has_copy and not changes_copy:
            raise ConfigError(
                f"--add {name} changes {originals[0]}, but not the copy of it in {_HEADS}.{copy}, which would stay as it is. Add "
                f"it before the fragment that makes {copy}, to a config without any."
            )


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    return getattr(value, "__name__", None) or repr(value)
