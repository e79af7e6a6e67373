"""``d2_balanced branch-scores``"""

import argparse

from .checkpoint import evaluated_checkpoints
from .numbers import count

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Checkpoints, and on how many images."""
    parser = evaluated_checkpoints("Scores of a trained detector's parallel branches for the same proposals.")
    parser.add_argument("--images", type=count, help="use only so many images, evenly spaced over the data set")
    return parser
