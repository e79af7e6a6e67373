"""The levels of the pyramid that a one-stage detector takes."""

from __future__ import annotations

from typing import List

from detectron2.layers import ShapeSpec

from d2_balanced.utils.errors import Refusal

__all__ = ["no_such_level", "shapes_of"]


def shapes_of(backbone, cfg) -> List[ShapeSpec]:
    """The shapes of ``MODEL.RETINANET.IN_FEATURES``; ``Refusal`` where the backbone has no such level."""
    shapes = backbone.output_shape()
    for name in cfg.MODEL.RETINANET.IN_FEATURES:
        if name not in shapes:
            raise no_such_level(cfg, name)
    return [shapes[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]


def no_such_level(cfg, name: str) -> Refusal:
    """What to raise where the backbone has no level ``name``."""
    return Refusal(
        f"MODEL.RETINANET.IN_FEATURES: {name}", f"MODEL.BACKBONE.NAME: {cfg.MODEL.BACKBONE.NAME}",
        "the backbone has no such level", "take a RetinaNet's (build_retinanet_...), which has p3 to p7",
    )  # fmt: skip
