"""Treatments of training imbalance for detectron2's two-stage detectors."""

import importlib
import os
import sys

from .compat import prepare

__version__ = "0.1.0"

# The doctor has to run where detectron2 is missing: it says how to get it. The command `d2_balanced`, which has a
# doctor and is to show its help at once, prepares for those that need it itself (__main__.py). (Python 3.9 does not show
# what `python -m` runs; there the error itself has to do.)
_words = getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv]
_command = os.path.basename("".join(_words[2:3] if _words[1:2] == ["-m"] else _words[1:2]))
if _command != "d2_balanced" and "d2_balanced.doctor" not in _words:
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
