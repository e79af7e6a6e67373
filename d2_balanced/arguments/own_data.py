"""The options of own data, as ``train`` and ``tune`` have them."""

from __future__ import annotations

import argparse

from .numbers import seed, share

__all__ = ["add_own_data"]


def add_own_data(parser: argparse.ArgumentParser, title: str) -> None:
    """Add ``--data``, or the four paths, and how a validation set is split off, as a group with this title."""
    data = parser.add_argument_group(title)
    data.add_argument(
        "--data", metavar="DIR", help="a folder in COCO's, YOLO's or Pascal VOC's layout, which is found by looking"
    )
    for split in ("train", "val"):
        data.add_argument(f"--{split}-json", metavar="FILE", help="or: annotations in COCO format")
        data.add_argument(f"--{split}-images", metavar="DIR", help="folder of the images")
    data.add_argument(
        "--val-fraction", type=share, metavar="F", help="share of the training images that is the validation set"
    )
    data.add_argument("--val-seed", type=seed, default=0, metavar="N", help="of their choice (default: 0)")
