"""``d2_balanced loss-curves``"""

import argparse

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Of which configs or runs, and where the figure goes."""
    parser = argparse.ArgumentParser(description="Box losses and their gradients over the error of a delta.")
    parser.add_argument("sources", nargs="*", metavar="[NAME=]CONFIG_OR_RUN", help="default: SmoothL1, several betas")
    parser.add_argument("--output", default="loss_curves.png", help="where the figure goes")
    return parser
