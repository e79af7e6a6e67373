"""``python -m d2_balanced.data.check --json A --images D [--num-classes N] [--strict]``: checks a COCO-format data set,
or with ``--data FOLDER`` those of a folder in any known layout.

Exit status 0 if there is no error (warnings are printed; with ``--strict`` they count as errors), 1 if there is one, 2
for a data set that cannot be found.
"""

import sys

from ..arguments.check import argument_parser
from ..utils.command import command
from .check_dataset import check_dataset, check_registered, conversion_report
from .layouts import data_of_folder
from .input_size import DEFAULT_SIZE, InputSize

__all__ = ["main"]


@command("python -m d2_balanced.data.check")
def main(args=None):
    """The command; returns the exit status."""
    parser = argument_parser()
    args = parser.parse_args(args)
    if [bool(args.name), bool(args.json and args.images), bool(args.data)].count(True) != 1:
        parser.error("give --json and --images, or --data, or --name")
    size = InputSize(*args.input_size) if args.input_size else DEFAULT_SIZE
    options = {"mask_format": args.masks, "images": args.files, "input_size": size,
               "size_is_known": bool(args.input_size), "repeat_threshold": args.repeat_threshold}
    if args.name:
        reports = [check_registered(args.name, args.num_classes, **options)]
    elif args.data:
        reports = _reports_of_folder(args.data, args.num_classes, options)
    else:
        reports = [check_dataset(args.json, args.images, args.num_classes, **options)]
    for report in reports:
        print(report)
    return int(any(report.errors or (args.strict and report.warnings) for report in reports))


def _reports_of_folder(folder, num_classes, options):
    """What was left out of the folder, if anything was, and the check of each split; prints how they were found."""
    found = data_of_folder(folder)
    print("\n".join(found.notes))
    pairs = [(found.train_json, found.train_images), (found.val_json, found.val_images)]
    checks = [check_dataset(*pair, num_classes, **options) for pair in pairs if all(pair)]
    return [conversion_report(folder, found.left_out), *checks] if found.left_out else checks


if __name__ == "__main__":
    sys.exit(main())
