"""``d2_balanced iou-scores``"""

import argparse

from .checkpoint import evaluated_checkpoints
from .numbers import count, score

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Checkpoints, images, and which boxes are compared."""
    parser = evaluated_checkpoints("Ranking by class score and by predicted IoU, of a trained detector.")
    parser.add_argument("--images", type=count, help="use only so many images, evenly spaced over the data set")
    parser.add_argument("--min-iou", type=score, default=0.5, help="true IoU above which boxes are correlated")
    return parser
