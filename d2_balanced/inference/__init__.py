"""What is done with a trained detector: objects are found in images."""

from .predictor import Predictor

__all__ = ["Predictor"]
