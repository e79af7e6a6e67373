"""``d2_balanced export``"""

import argparse

from ..utils.command import called
from .checkpoint import add_last_overrides, add_run
from .numbers import positive

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Which run becomes which file, on which images that is tried, and how far it may be from the detector."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.inference.export"), allow_abbrev=False,
        description="Write a trained detector to a file that other programs run, run it on images, and compare it with "
        "the detector. Guide: docs/EXPORT.md.",
    )  # fmt: skip
    add_run(parser)
    parser.add_argument("--format", required=True, choices=("onnx", "torchscript"))
    parser.add_argument(
        "--output", default="", metavar="FILE", help="default: in the run's folder, named as the checkpoint"
    )
    parser.add_argument(
        "--images", nargs="+", default=(), metavar="PATH",
        help="image files, folders, or patterns in quotes, to try the file on (default: four images of the run's own)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="that a TorchScript file will run on (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")
    bounds = parser.add_argument_group("largest difference between the file's objects and the detector's")
    bounds.add_argument("--box-bound", type=positive, metavar="PX", help="of a coordinate, in pixels (default: 0.1)")
    bounds.add_argument("--score-bound", type=positive, metavar="S", help="of a score (default: 0.001)")
    bounds.add_argument("--mask-bound", type=positive, metavar="P", help="of a mask's probability (default: 0.01)")
    add_last_overrides(parser)
    return parser
