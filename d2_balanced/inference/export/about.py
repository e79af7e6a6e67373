"""What an exported file says about itself: all that a program needs to know to use it without this package."""

from __future__ import annotations

import os
from typing import Any, Dict, List

import detectron2.data.transforms as T

from ... import __version__
from ...modeling.test_limits import limits_of
from ...utils.errors import ConfigError
from ..predictor import Predictor

__all__ = ["KEY", "about", "input_format"]

KEY = "d2_balanced"
"""Name of the file's metadata entry: JSON with the keys of :func:`about`."""


def about(predictor: Predictor, outputs: List[str]) -> Dict[str, Any]:
    """The metadata of the exported ``predictor``; docs/EXPORT.md has a table of the keys."""
    limits = limits_of(predictor.model)
    return {
        "version": __version__,
        "weights": os.path.basename(predictor.weights),
        "class_names": predictor.class_names,
        "category_ids": predictor.category_ids,
        **input_format(predictor),
        "pixel_mean": predictor.model.pixel_mean.flatten().tolist(),
        "pixel_std": predictor.model.pixel_std.flatten().tolist(),
        "score_threshold": limits.score_thresh,
        "max_objects": limits.detections,
        "outputs": outputs,
        "device": str(predictor.model.device),
    }


def input_format(predictor: Predictor) -> Dict[str, Any]:
    """How an image becomes the input; ``ConfigError`` where the test mapper does what a file cannot say."""
    mapper = predictor.reader.mapper
    channels = getattr(mapper, "image_format", None)
    if channels not in ("BGR", "RGB"):
        raise ConfigError(f"The test mapper reads images as {channels!r} (INPUT.FORMAT): a file takes BGR or RGB.")
    steps = list(getattr(getattr(mapper, "augmentations", None), "augs", []))
    if [type(step) for step in steps] != [T.ResizeShortestEdge] or len(set(steps[0].short_edge_length)) != 1:
        raise ConfigError(
            f"The test mapper's augmentations are {steps}: an exported file can only say how to resize (one "
            "ResizeShortestEdge of one length)."
        )
    sides = {"shortest_side": steps[0].short_edge_length[0], "longest_side": steps[0].max_size}
    return {"channels": channels, **sides}
