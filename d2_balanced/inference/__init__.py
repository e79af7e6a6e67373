"""What is done with a trained detector: objects are found in images."""

from .predictor import Predictor
from .tiles import Tiles

__all__ = ["Predictor", "Tiles"]
