"""``d2_balanced doctor``"""

import argparse

from ..utils.command import called

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """No options."""
    about = "What is installed, what is wrong with it, and the fix."
    return argparse.ArgumentParser(prog=called("python -m d2_balanced.doctor"), description=about)
