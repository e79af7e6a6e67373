"""Weights given by URL: fetched before time is spent, or told with the cause and where to put the file by hand."""

from __future__ import annotations

import os
from typing import Tuple
from urllib.parse import urlparse

from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import PathManager

from ..utils.errors import CheckpointError

__all__ = ["fetch"]

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"


def fetch(path: str) -> str:
    """The local file of ``path``, downloaded into iopath's cache if that is a URL and it is not there yet.

    Raises ``CheckpointError`` if it cannot be fetched; a local path that does not exist is returned as it is.
    """
    try:
        return PathManager.get_local_path(path)
    except (OSError, RuntimeError, AssertionError) as error:  # of the network; of the catalog; of the end of a download
        if "://" not in path:
            raise
        raise CheckpointError(f"The weights {path!r} cannot be fetched: {_cause(error)}. {_way_out(path)}") from error


def _cause(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error or type(error).__name__).splitlines()[0].rstrip(".")


def _way_out(path: str) -> str:
    without = "Or start without them: MODEL.WEIGHTS '' (LazyConfig: train.init_checkpoint=''), or a local path there"
    try:
        url, cached = _where(path)
    except RuntimeError:  # a name that the catalog does not have
        return f"{without}."
    return f"Where there is a network, download {url}, and put it here as {cached!r}. {without}."


def _where(path: str) -> Tuple[str, str]:
    """(address of the file, where iopath keeps it)."""
    url = path
    if url.startswith("catalog://"):
        url = ModelCatalog.get(url[len("catalog://") :])
    if url.startswith("detectron2://"):
        url = _DETECTRON2 + url[len("detectron2://") :]
    cache = os.path.expanduser(os.getenv("FVCORE_CACHE", "~/.torch/iopath_cache"))
    return url, os.path.join(cache, os.path.dirname(urlparse(url).path.lstrip("/")), url.split("/")[-1])
