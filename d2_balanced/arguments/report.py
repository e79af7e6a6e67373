"""``d2_balanced report``"""

import argparse

from ..utils.command import called
from .checkpoint import add_training_images
from .numbers import natural

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Of which run or checkpoint, and where the page goes."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.analysis.report"),
        description="The imbalance report of a run or of a checkpoint.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN_DIR", help="output folder of a run")
    add_training_images(parser, config_required=False)  # in place of a run
    parser.add_argument("--pictures", type=natural, default=4, help="training images to draw")
    parser.add_argument("--output", default="", help="the report goes to OUTPUT/imbalance; default: RUN_DIR")
    parser.add_argument("--opts", nargs="*", default=[], metavar="SETTING", help="overrides of --config-file")
    return parser
