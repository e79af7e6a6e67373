"""``d2_balanced samples``"""

import argparse

from .checkpoint import add_overrides, add_training_images

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """A checkpoint, training images, and where the figures go."""
    parser = argparse.ArgumentParser(description="What a checkpoint's box heads would train on, as figures.")
    add_training_images(parser)
    parser.add_argument("--output", required=True, help="folder for imbalance.jsonl and the figures")
    parser.add_argument("--targets", action="store_true", help="draw the regression targets of single proposals, too")
    add_overrides(parser)
    return parser
