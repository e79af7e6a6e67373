"""``d2_balanced benchmark``"""

import argparse

from ..utils.command import called
from .checkpoint import add_last_overrides, add_run
from .numbers import count

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Which detector is timed beside what, on which images and how often."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.inference.benchmark"), allow_abbrev=False,
        description="What a trained detector costs, beside plain detectron2 and exported files. Guide: docs/EXPORT.md.",
    )  # fmt: skip
    add_run(parser)
    parser.add_argument("--exported", nargs="+", default=(), metavar="FILE", help="files of `d2_balanced export`")
    parser.add_argument(
        "--images", nargs="+", default=(), metavar="PATH",
        help="image files, folders, or patterns in quotes (default: eight images of the run's own)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=count, default=10, metavar="N", help="times each image is timed (default: 10)")
    parser.add_argument("--threads", type=count, metavar="N", help="of torch and onnxruntime (default: torch's own)")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: the config's)")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True,
                        help="measure peak memory, each variant in a process of its own")  # fmt: skip
    parser.add_argument(
        "--output", default="", metavar="FILE", help="JSON, replaced (default: benchmark.json in the run's folder)"
    )
    add_last_overrides(parser)
    return parser
