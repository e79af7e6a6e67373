"""``d2_balanced convert``"""

import argparse

from ..utils.command import called
from .numbers import seed, share

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Which folder is converted, where to, and what is set aside."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.convert"),
        description="COCO JSON of a folder in COCO's, YOLO's or Pascal VOC's layout, which is found by looking.",
    )
    parser.add_argument("folder", metavar="DIR", help="the images with their labels")
    parser.add_argument("--output", required=True, metavar="DIR", help="train.json and val.json are written into it")
    parser.add_argument("--val-fraction", type=share, metavar="F", help="share of the training images to set aside")
    parser.add_argument("--val-seed", type=seed, default=0, metavar="N", help="of their choice (default: 0)")
    return parser
