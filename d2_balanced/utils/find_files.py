"""Files below a folder, behind links, too, which ``Path.rglob`` passes over."""

from __future__ import annotations

import glob
import os
from typing import List

__all__ = ["find_below"]


def find_below(folder: str, pattern: str) -> List[str]:
    """Sorted paths that match ``pattern`` in ``folder`` or in any folder below it; signs of a pattern in ``folder`` are
    letters of its name."""
    return sorted(glob.glob(os.path.join(glob.escape(str(folder)), "**", pattern), recursive=True))
