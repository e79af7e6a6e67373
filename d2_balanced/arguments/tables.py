"""``d2_balanced tables``"""

from __future__ import annotations

import argparse

from ..utils.command import called
from .numbers import count, natural, seed

__all__ = ["SCALES", "argument_parser"]

SCALES = ("tiny", "coco")
_EPILOG = """
Examples:
  python -m d2_balanced.tables --list
  python -m d2_balanced.tables LibraRCNN:table_2 --dry-run
  python -m d2_balanced.tables LibraRCNN:table_2 DynamicRCNN:table_3 --jobs 2 --train-json A.json --train-images DIR ...
  python -m d2_balanced.tables DynamicRCNN:table_3 --row baseline --row DLA --seeds 1 2 --overrides SOLVER.MAX_ITER 480
  python -m d2_balanced.tables R3CNN --scale coco --num-gpus 8

Exit status 2 and one line: something to mend; D2_BALANCED_TRACEBACK=1 in the environment shows its traceback, too.
"""


def argument_parser() -> argparse.ArgumentParser:
    """What to run, at which scale, on which data, and where the results go."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.tables"), description="Run the papers' tables of projects/*/tables.yaml.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )
    parser.add_argument("what", nargs="*", metavar="PAPER[:TABLE]", help="folder of projects/, or a tables.yaml")
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help="only this row (may be repeated)")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="the quick recipe (default), or the paper's")
    parser.add_argument("--seeds", type=seed, nargs="+", metavar="N", help="default: 1 2 3 4 for tiny, 1 for coco")
    parser.add_argument("--output", default="output/tables", metavar="DIR", help="default: output/tables")
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="runs at a time, one thread each")
    parser.add_argument("--num-gpus", type=natural, default=1, metavar="N", help="GPUs of every run")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="papers, tables and rows, and what cannot run")
    instead.add_argument("--dry-run", action="store_true", help="print configs, overrides and commands")
    instead.add_argument("--report", action="store_true", help="only write the results of what is finished")
    data = parser.add_argument_group("own data in COCO format, as for train_net.py (default: those of the configs)")
    for split in ("train", "val"):
        data.add_argument(f"--{split}-json", default="", metavar="FILE", help="annotations")
        data.add_argument(f"--{split}-images", default="", metavar="DIR", help="folder of the images")
    parser.add_argument("--adopt", action="append", default=[], metavar="DIR",
                        help="link finished runs of equal config and seed from below this folder (may be repeated)")
    parser.add_argument("--speed", action="store_true",
                        help="then measure images a second, time and memory of a step of every run, one at a time")
    parser.add_argument("--final-only", action="store_true", help="of finished runs keep model_final.pth only")
    parser.add_argument("--overrides", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
                        help="config overrides for all rows; everything after this word")
    return parser
