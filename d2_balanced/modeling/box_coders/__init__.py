"""Box coders: what a predictor says of a box, and the box that it means; detectron2's are its ``Box2BoxTransform``."""

from .buckets import Buckets

__all__ = ["Buckets"]
