"""Treatments of training imbalance for detectron2's two-stage detectors."""

import sys

from .compat import prepare

__version__ = "0.1.0"

# `python -m d2_balanced.doctor` has to run where detectron2 is missing: it says how to get it. (Python 3.9 does not
# show what is being run; there the error itself has to do.)
if "d2_balanced.doctor" not in getattr(sys, "orig_argv", ()):
    prepare()
