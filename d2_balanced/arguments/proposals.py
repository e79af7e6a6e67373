"""``d2_balanced proposals``"""

import argparse

from ..utils.command import called

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """A proposal file and a data set."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.proposal_files"), description="Does a proposal file fit a data set?"
    )
    parser.add_argument("file", help="as in DATASETS.PROPOSAL_FILES_TRAIN")
    parser.add_argument("--name", required=True, help="registered data set, e.g. coco_2017_train")
    return parser
