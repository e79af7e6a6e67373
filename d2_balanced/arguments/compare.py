"""``d2_balanced compare``"""

import argparse

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Two evaluations."""
    parser = argparse.ArgumentParser(description="Table of the metrics of two evaluations and their differences.")
    parser.add_argument("first", help="metrics.json of an evaluation, or a folder with one")
    parser.add_argument("second", help="the same for the run to compare with it")
    return parser
