"""``d2_balanced plot``"""

import argparse

from .numbers import natural

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Recordings of which runs, and which of their iterations."""
    parser = argparse.ArgumentParser(description="Figures of what runs recorded, one PNG each.")
    parser.add_argument("runs", nargs="+", metavar="[NAME=]OUTPUT_DIR", help="folders of runs; several are overlaid")
    parser.add_argument("--output", help="folder for the PNGs; default: OUTPUT_DIR/imbalance of the first run")
    parser.add_argument("--first", type=natural, default=0, help="leave out windows that end before this iteration")
    parser.add_argument("--last", type=natural, help="leave out windows that begin after this iteration")
    return parser
