"""``d2_balanced predict``"""

import argparse

from ..utils.command import called
from .checkpoint import add_last_overrides, add_run
from .numbers import count, natural, part, score

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Which run finds objects in which files, what is kept of them, and how fast it goes."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.inference"), allow_abbrev=False,
        description="Find objects in images and videos with a trained detector. Guide: docs/PREDICT.md.",
    )  # fmt: skip
    add_run(parser)
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH",
        help="image or video files, folders of images, or patterns in quotes ('photos/**/*.jpg')",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what is found; it is made")
    parser.add_argument("--overwrite", action="store_true", help="replace the predictions in the output folder")
    _add_what_is_kept(parser.add_argument_group("what is kept"))
    _add_how(parser.add_argument_group("how images are looked at"))
    add_last_overrides(parser)
    return parser


def _add_what_is_kept(group) -> None:
    group.add_argument("--score", type=score, default=0.5, metavar="S", help="no objects below it (default: 0.5)")
    group.add_argument(
        "--max", type=count, metavar="N", help="objects an image, the best (default: 100; with --tile all)"
    )
    group.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw what is found")


def _add_how(group) -> None:
    group.add_argument("--tile", type=count, metavar="SIZE", help="larger images also in tiles of SIZE pixels")
    group.add_argument(
        "--overlap", type=part, default=0.2, metavar="F", help="part of a tile that its neighbour has (default: 0.2)"
    )
    group.add_argument("--tta", action="store_true", help="test-time augmentation, as the config describes it")
    group.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: the config's)")
    group.add_argument(
        "--batch", type=count, default=1, metavar="N", help="images or tiles that the model gets at once (default: 1)"
    )
    group.add_argument(
        "--workers", type=natural, default=0, metavar="N", help="processes that read images ahead (default: 0)"
    )
