"""``d2_balanced ap-by-stage``"""

import argparse

from .checkpoint import evaluated_checkpoints
from .numbers import count

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Checkpoints, and how many stages."""
    parser = evaluated_checkpoints("AP of a trained multi-stage detector after each of its stages.")
    parser.add_argument("--up-to", type=count, help="most stages; default: as many as the config has")
    return parser
