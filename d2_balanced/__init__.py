"""Treatments of training imbalance for detectron2's two-stage detectors."""

from .compat import prepare

prepare()

__version__ = "0.1.0"
