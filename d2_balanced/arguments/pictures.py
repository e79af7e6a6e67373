"""``d2_balanced pictures``"""

import argparse

from .checkpoint import add_overrides
from .numbers import count, score

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Of a model or of a results file, on which data set, and what is drawn."""
    parser = argparse.ArgumentParser(description="Pictures of detections beside the ground truth.")
    parser.add_argument("--config-file", help="config of the model (.yaml or .py)")
    parser.add_argument("--weights", help="its checkpoint; default: the one that the config names")
    parser.add_argument("--results", help="COCO results file, in place of a model")
    parser.add_argument("--dataset", help="registered data set; default: the config's first test data set")
    parser.add_argument("--json", help="COCO annotation file, in place of a registered data set (with --images)")
    parser.add_argument("--images", help="folder of its images")
    parser.add_argument("--output", default="pictures", help="folder for the pictures")
    parser.add_argument("--num", type=count, default=12, help="number of images")
    parser.add_argument("--score-thresh", type=score, default=0.5, help="detections below it are not drawn")
    parser.add_argument("--beside", nargs="+", metavar="WORD", help="overrides: draw what is found with these, too")
    add_overrides(parser)
    return parser
