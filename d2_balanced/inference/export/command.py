"""Write a trained detector to a file that other programs run, and try it.

    d2_balanced export --run output/mine --format onnx --images my/val
"""

from __future__ import annotations

import sys

from tabulate import tabulate

from ...arguments.export import argument_parser
from ...utils.command import command
from ..images import find_images
from .differences import worst
from .write import BOUNDS, Report, export_run

__all__ = ["DIFFERS", "main"]

DIFFERS = 1
"""Exit status where the file's detections differ from the detector's by more than the bounds."""


@command("python -m d2_balanced.inference.export")
def main(argv=None) -> int:
    """The command at the top of this module; returns its exit status."""
    args = argument_parser().parse_args(argv)
    given = {"box": args.box_bound, "score": args.score_bound, "mask": args.mask_bound}
    report = export_run(
        args.run, args.format, args.output, images=find_images(args.images, "--images"), weights=args.weights,
        device=args.device, overrides=args.opts, overwrite=args.overwrite,
        bounds=BOUNDS._replace(**{name: value for name, value in given.items() if value is not None}),
    )  # fmt: skip
    return _tell(report)


def _tell(report: Report) -> int:
    with_masks = "masks" in report.about["outputs"]
    total = "all", (), worst([each for _, _, each in report.rows])
    rows = [_row(*row)[: 7 if with_masks else 6] for row in [*report.rows, total]]
    headers = ["image", "size", "objects", "only one has", "box px", "score"] + ["mask"] * with_masks
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    bounds = f"{report.bounds.box:g} px, {report.bounds.score:g}" + f", {report.bounds.mask:g}" * with_masks
    if report.agrees:
        print(f"The file finds what the detector finds; largest differences allowed: {bounds}.\n{report.path}")
        return 0
    print(
        f"The file does not find what the detector finds; largest differences allowed: {bounds}. It is kept for a "
        f"look, and is not to be used: {report.path}", file=sys.stderr,
    )  # fmt: skip
    return DIFFERS


def _row(name, size, found):
    size = f"{size[1]} x {size[0]}" if size else ""
    return [name, size, found.pairs, found.alone, *(f"{each:.1e}" for each in (found.box, found.score, found.mask))]
