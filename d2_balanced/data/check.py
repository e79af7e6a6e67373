"""``python -m d2_balanced.data.check --json A --images D [--num-classes N] [--strict]``: checks a COCO-format data set.

Exit status 0 if there is no error (warnings are printed; with ``--strict`` they count as errors), 1 if there is one, 2
for a data set that cannot be found.
"""

import argparse
import sys

from ..utils.command import called, command
from .check_dataset import check_dataset, check_registered
from .input_size import DEFAULT_SIZE, InputSize

__all__ = ["main"]


@command("python -m d2_balanced.data.check")
def main(args=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.data.check"), description="Check a detection data set."
    )
    parser.add_argument("--json", help="annotation file in COCO format")
    parser.add_argument("--images", help="folder of its images")
    parser.add_argument("--name", help="a registered data set instead, e.g. coco_2017_train")
    parser.add_argument("--num-classes", type=int, default=None, help="the model's number of classes")
    parser.add_argument("--masks", choices=["polygon", "bitmask"], help="masks are trained, in this format")
    parser.add_argument("--files", choices=["auto", "headers", "decode", "none"], default="auto",
                        help="what is read of the image files; auto: everything of small sets, headers of large ones")
    parser.add_argument("--input-size", type=int, nargs=2, metavar=("SHORT", "LONG"),
                        help="what the model resizes images to: short edge, largest long edge "
                        f"(default: {DEFAULT_SIZE.short_edge} {DEFAULT_SIZE.max_size}, for warnings only)")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    args = parser.parse_args(args)
    if bool(args.name) == bool(args.json and args.images):
        parser.error("give --json and --images, or --name")
    size = InputSize(*args.input_size) if args.input_size else DEFAULT_SIZE
    options = {"mask_format": args.masks, "images": args.files, "input_size": size,
               "size_is_known": bool(args.input_size)}
    if args.name:
        report = check_registered(args.name, args.num_classes, **options)
    else:
        report = check_dataset(args.json, args.images, args.num_classes, **options)
    print(report)
    return 1 if report.errors or (args.strict and report.warnings) else 0


if __name__ == "__main__":
    sys.exit(main())
