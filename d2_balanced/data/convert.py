"""``d2_balanced convert DIR --output OUT``: a folder in a known layout as COCO JSON files, with a report of what was dropped.

``train --data DIR`` does the same by itself; this is for other programs, and to look at the files.
"""

import os
import shlex
import shutil
import sys

from ..arguments.convert import argument_parser
from ..utils.command import command
from ..utils.errors import OutputError, usage
from .layouts import data_of_folder

__all__ = ["main"]


@command("python -m d2_balanced.data.convert")
def main(args=None):
    """The command; returns the exit status."""
    args = argument_parser().parse_args(args)
    targets = [os.path.join(args.output, f"{split}.json") for split in ("train", "val")]
    for path in filter(os.path.lexists, targets):
        raise OutputError(f"{path} is there already. Delete it, or give another --output.")
    found = data_of_folder(args.folder, args.val_fraction, args.val_seed)
    print("\n".join([*found.notes, *found.left_out]))
    words = []
    with usage(f"--output {args.output}", OSError, error=OutputError):
        os.makedirs(args.output, exist_ok=True)
        for split, source, images, target in zip(
            ("train", "val"), (found.train_json, found.val_json), (found.train_images, found.val_images), targets
        ):
            if source:
                shutil.copyfile(source, target)
                words += [f"--{split}-json", target, f"--{split}-images", images]
    print("Written. To train on it: d2_balanced train --config-file CONFIG " + shlex.join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
