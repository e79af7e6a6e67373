"""``d2_balanced parameters``"""

import argparse

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """The configs."""
    parser = argparse.ArgumentParser(description="How many parameters the models of configs have, by part.")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help=".yaml (yacs) or .py (LazyConfig)")
    return parser
