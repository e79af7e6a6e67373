"""``d2_balanced crowdhuman``"""

import argparse

from ..utils.command import called

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """The annotations that are converted."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.crowdhuman"),
        description="Convert CrowdHuman's .odgt annotations to COCO JSON.",
    )
    parser.add_argument("--odgt", required=True, help="annotation file")
    parser.add_argument("--images", required=True, help="folder of its images")
    parser.add_argument("--output", required=True, help="JSON file to write")
    return parser
