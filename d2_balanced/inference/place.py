"""Whether a file can be written, tried before time is spent."""

from __future__ import annotations

import os
import tempfile

from ..utils.errors import OutputError, usage

__all__ = ["require_place"]


def require_place(path: str) -> None:
    """Make the folder of ``--output path``; ``OutputError`` if that, or writing into it, is not possible."""
    folder = os.path.dirname(os.path.abspath(path))
    with usage(f"--output {path!r} cannot be written", OSError, error=OutputError):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
