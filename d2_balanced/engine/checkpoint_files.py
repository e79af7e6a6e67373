"""Checkpoint files: which a run's folder has, and what is in one, read without running code that it may contain."""

import contextlib
import logging
import os
import zipfile

import torch

from ..utils.errors import CheckpointError, shown
from ..utils.safe_load import load_pickled_arrays, why_unreadable
from .fetch import fetch
from .foreign_weights import in_detectron2_layout

__all__ = ["BEST", "UnreadableCheckpointError", "checkpoints_in", "read_checkpoint"]

BEST = "model_best"

logger = logging.getLogger(__name__)


class UnreadableCheckpointError(CheckpointError):
    """A file that is damaged, or that holds more than tensors and plain Python."""


def read_checkpoint(path):
    """Content of a checkpoint file in detectron2's layout: a dict with ``model``. Runs no code that it may contain.

    Raises ``CheckpointError`` if there is no such file, ``UnreadableCheckpointError`` if it is damaged, or holds more
    than tensors and plain Python.
    """
    local_path = fetch(path)
    if not os.path.isfile(local_path):
        raise CheckpointError(f"checkpoint {path!r} not found; check MODEL.WEIGHTS (LazyConfig: train.init_checkpoint)")
    try:
        loaded = _load_file(local_path)
    except Exception as error:  # a damaged file makes torch and pickle raise nearly anything
        reason = str(error) if isinstance(error, CheckpointError) else why_unreadable(error)
        raise UnreadableCheckpointError(f"checkpoint {path!r} cannot be read: {reason}") from error
    return in_detectron2_layout(loaded, path)


def _load_file(filename):
    if filename.endswith(".pkl"):
        with open(filename, "rb") as file:
            return _in_checkpoint_layout(load_pickled_arrays(file))
    _require_sound(filename)
    loaded = torch.load(filename, map_location="cpu", weights_only=True)
    if filename.endswith(".pyth"):  # pycls
        weights = {k: v for k, v in loaded["model_state"].items() if not k.endswith("num_batches_tracked")}
        return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    return loaded


def checkpoints_in(folder):
    """Checkpoints of a run's folder: the one in ``last_checkpoint``, the others from new to old, the best one."""
    if not folder or not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.startswith("model_") and name.endswith(".pth")]
    names = [name for name in names if os.path.isfile(os.path.join(folder, name))]  # no dangling links
    age = {name: -os.path.getmtime(os.path.join(folder, name)) for name in names}
    names.sort(key=lambda name: (name.startswith(BEST), age[name], name))
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(os.path.join(folder, "last_checkpoint"), encoding="utf-8") as file:
            last = os.path.basename(file.read().strip())
        if last in names:
            names = [last] + [name for name in names if name != last]
        elif names:
            logger.warning("%s names %s, which is not there; %s is taken.", file.name, shown(last), names[0])
    return [os.path.join(folder, name) for name in names]


def _require_sound(filename):
    """Compare what a file holds with the checksums that torch wrote beside it; torch itself does not.

    Raises ``UnreadableCheckpointError`` for damage; files of torch's old format have no checksums.
    """
    if zipfile.is_zipfile(filename):
        with zipfile.ZipFile(filename) as archive:
            damaged = archive.testzip()
        if damaged:
            raise UnreadableCheckpointError(f"{damaged} in it is not what was written (its checksum differs)")


def _in_checkpoint_layout(data):
    """A ``.pkl`` file's content with its weights under ``model``, marked for detectron2's matching of names."""
    if "model" in data and "__author__" in data:
        return data
    blobs = data.get("blobs", data)  # Detectron's detection models have "blobs", its ImageNet models do not
    weights = {name: array for name, array in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
