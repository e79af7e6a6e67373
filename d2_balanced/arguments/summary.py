"""``d2_balanced summary``"""

import argparse

from .numbers import count

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """The arms of an experiment, and the ground truth."""
    parser = argparse.ArgumentParser(description="Mean and spread of the arms of an experiment.")
    parser.add_argument(
        "arms", nargs="+", metavar="NAME=FOLDER",
        help="all runs below a folder, or what a pattern in quotes matches ('output/*/inference_TTA'); the first arm is the "
        "reference",
    )  # fmt: skip
    parser.add_argument("--gt", required=True, help="COCO JSON with the ground truth")
    parser.add_argument("--task", choices=["bbox", "segm"], default="bbox")
    parser.add_argument("--max-dets", type=count, default=100)
    return parser
