"""``python -m d2_balanced.data.check --json A --images D [--num-classes N] [--strict]``: checks a COCO-format data set.

Exit status 0 if there is no error (warnings are printed; with ``--strict`` they count as errors), 1 if there is one, 2
for a data set that cannot be found.
"""

import sys

from ..arguments.check import argument_parser
from ..utils.command import command
from .check_dataset import check_dataset, check_registered
from .input_size import DEFAULT_SIZE, InputSize

__all__ = ["main"]


@command("python -m d2_balanced.data.check")
def main(args=None):
    """The command; returns the exit status."""
    parser = argument_parser()
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
