"""Treatments of training imbalance for detectron2's two-stage detectors."""

import importlib
import sys

from .compat import prepare

__version__ = "0.1.0"

# `python -m d2_balanced.doctor` has to run where detectron2 is missing: it says how to get it. (Python 3.9 does not
# show what is being run; there the error itself has to do.)
if "d2_balanced.doctor" not in getattr(sys, "orig_argv", ()):
    prepare()

# For scripts of one's own (docs/LIBRARY.md); imported when asked for, because they import torch and all components.
_LIBRARY = {
    "add_balanced_config": ".config.defaults",
    "balanced_hooks": ".engine.library",
    "balanced_train_loader": ".engine.library",
}


def __getattr__(name):
    if name in _LIBRARY:
        return getattr(importlib.import_module(_LIBRARY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
