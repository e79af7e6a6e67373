"""``d2_balanced generated``"""

import argparse

from ..utils.command import called
from .numbers import at_least

__all__ = ["DEFAULTS", "HIGHEST", "LOWEST", "argument_parser"]

DEFAULTS = {"train_images": 200, "val_images": 100, "size": 256, "seed": 0}
LOWEST, HIGHEST = {"train_images": 1, "val_images": 1, "size": 64, "seed": 0}, 2**32 - 1
_LEVELS = ("mild", "hard")


def argument_parser() -> argparse.ArgumentParser:
    """How many pictures of which kind are drawn, and where they go."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.generated"), description="Draw the generated data set."
    )
    parser.add_argument("--output", default=None, help="folder (default: $DETECTRON2_DATASETS/generated)")
    for key, value in DEFAULTS.items():
        kind = at_least(LOWEST[key], HIGHEST)
        parser.add_argument("--" + key.replace("_", "-"), type=kind, default=value, help=f"default {value}")
    parser.add_argument("--level", default="mild", choices=_LEVELS, help="how hard the pictures are (default: mild)")
    return parser
