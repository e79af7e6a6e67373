"""Treatments of training imbalance for detectron2's two-stage detectors."""

import sys

from .compat import prepare

__version__ = "0.1.0"

# `python -m d2_balanced.doctor` has to run where detectron2 is missing: it says how to get it.
if "d2_balanced.doctor" not in getattr(sys, "orig_argv", ()):
    prepare()
