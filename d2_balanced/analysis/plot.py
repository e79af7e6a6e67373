"""Figures of what one or several runs recorded (``ANALYSIS.RECORD``, ``train.record_imbalance``; docs/ANALYSIS.md):

    python -m d2_balanced.analysis.plot OUTPUT_DIR
    python -m d2_balanced.analysis.plot baseline=output/faster "with RGA"=output/rga --output comparison

The first writes into ``OUTPUT_DIR/imbalance/``. ``--first`` and ``--last`` choose the iterations that count.
"""

from __future__ import annotations

import os

from ..arguments.plot import argument_parser
from ..recording.file import read_recording
from ..utils.command import command
from ..utils.errors import ConfigError
from ..utils.output_folder import require_writable
from .imbalance_figures import save_plots

__all__ = ["main"]


@command("python -m d2_balanced.analysis.plot")
def main(argv=None):
    """The commands at the top of this module; prints and returns the paths of the PNGs."""
    args = argument_parser().parse_args(argv)
    runs = dict(_name_and_folder(word) for word in args.runs)
    if len(runs) < len(args.runs):
        raise ConfigError("two runs have one name: give them as NAME=OUTPUT_DIR")
    recordings = {name: _cut(read_recording(folder), args, folder) for name, folder in runs.items()}
    output = args.output or os.path.join(next(iter(runs.values())), "imbalance")
    require_writable(output)
    paths = save_plots(recordings, output)
    print("\n".join(paths))
    return paths


def _name_and_folder(word):
    name, equals, folder = word.partition("=")
    if equals and not os.path.isdir(word):
        return name, folder
    return os.path.basename(os.path.normpath(word)), word


def _cut(recording, args, folder):
    last = float("inf") if args.last is None else args.last
    windows = [window for window in recording.windows if window[1] >= args.first and window[0] <= last]
    if not windows:
        raise ConfigError(f"{folder}: no window of iterations is left by --first {args.first} --last {args.last}")
    gradients = [(i, norms) for i, norms in recording.gradients if args.first <= i <= last]
    return recording._replace(windows=windows, gradients=gradients)


if __name__ == "__main__":
    main()
