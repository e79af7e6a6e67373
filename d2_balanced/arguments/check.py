"""``d2_balanced check``"""

import argparse

from ..utils.command import called
from .numbers import count, score

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Which data set is checked, and against what."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.check"), description="Check a detection data set."
    )
    parser.add_argument("--json", help="annotation file in COCO format")
    parser.add_argument("--images", help="folder of its images")
    parser.add_argument("--data", metavar="DIR", help="or: a folder in COCO's, YOLO's or Pascal VOC's layout")
    parser.add_argument("--name", help="or: a registered data set, e.g. coco_2017_train")
    parser.add_argument("--num-classes", type=count, help="the model's number of classes")
    parser.add_argument("--masks", choices=["polygon", "bitmask"], help="masks are trained, in this format")
    parser.add_argument("--files", choices=["auto", "headers", "decode", "none"], default="auto",
                        help="what is read of the image files; auto: everything of small sets, headers of large ones")
    parser.add_argument("--input-size", type=count, nargs=2, metavar=("SHORT", "LONG"),
                        help="what the model resizes images to: short edge, largest long edge "
                        "(default: 800 1333, for warnings only)")  # fmt: skip
    parser.add_argument("--repeat-threshold", type=score, default=0.0, metavar="T",
                        help="what repeat-factor sampling with this threshold (DATALOADER.REPEAT_THRESHOLD) would give "
                        "each class in an epoch")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    return parser
