"""What changed between two runs: a table of metrics with their difference.

    python -m d2_balanced.evaluation.compare A/inference/val/metrics.json B/inference/val/metrics.json

A folder in place of a file stands for the one metrics.json of an evaluation below it.
"""

from pathlib import Path

from tabulate import tabulate

from ..arguments.compare import argument_parser
from ..utils.command import command
from ..utils.errors import DataError
from ..utils.find_files import find_below
from .write_results import read_report

__all__ = ["compare", "load_metrics", "main"]


def load_metrics(path):
    """``{task: {metric: value or None}}`` from a metrics.json of an evaluation, or from a folder with one in it.

    DataError, naming the path, where there is none, there are several, or it is another kind of file.
    """
    path = Path(path)
    if path.is_dir():
        found = find_below(path, "inference/*/metrics.json") or [str(file) for file in path.glob("metrics.json")]
        if len(found) != 1:
            raise DataError(f"{path} has {len(found)} metrics.json of an evaluation; name one: {found}.")
        path = found[0]
    return read_report(path)["metrics"]


def compare(first, second):
    """Rows ``(task, metric, value of first, value of second, second - first)``; None where one has no value."""
    rows = []
    for task in dict.fromkeys([*first, *second]):
        a, b = first.get(task, {}), second.get(task, {})
        for metric in dict.fromkeys([*a, *b]):
            values = a.get(metric), b.get(metric)
            rows.append((task, metric, *values, None if None in values else values[1] - values[0]))
    return rows


@command("python -m d2_balanced.evaluation.compare")
def main(argv=None):
    """The command at the top of this module; prints the table and returns the rows."""
    args = argument_parser().parse_args(argv)
    rows = compare(load_metrics(args.first), load_metrics(args.second))
    shown = [[task, metric, *map(_shown, (a, b)), _shown(delta, "+.2f")] for task, metric, a, b, delta in rows]
    headers = ["task", "metric", "first", "second", "delta"]
    print(f"first:  {args.first}\nsecond: {args.second}\n")
    print(tabulate(shown, headers=headers, disable_numparse=True, colalign=["left"] * 2 + ["right"] * 3))
    return rows


def _shown(value, form=".2f"):
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
