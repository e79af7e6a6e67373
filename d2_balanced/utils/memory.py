"""How much memory a process has held."""

from __future__ import annotations

import os
import resource
import sys

__all__ = ["peak_resident"]


def peak_resident() -> int:
    """Most memory that this process held so far, in bytes.

    Not ``ru_maxrss`` where there is better: in it Linux counts what the process that began this one held.
    """
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):  # which some sandboxes leave out
                    return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
