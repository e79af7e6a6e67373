"""Arms of an experiment side by side: mean and standard deviation over their runs, and the difference to the first.

    python -m d2_balanced.evaluation.summary --gt val.json baseline=output/baseline libra=output/libra

Every arm is a folder with one run (an OUTPUT_DIR with its evaluation) per seed. All metrics are computed from the
runs' detections, so arms that were trained with other evaluation settings stay comparable.
"""

import glob
import os
import statistics
from pathlib import Path

from tabulate import tabulate

from ..arguments.summary import argument_parser
from ..utils.command import command
from ..utils.errors import ConfigError, DataError
from ..utils.find_files import find_below
from .coco_metrics import evaluate_coco
from .detections import known_detections
from .ground_truth import GroundTruth

__all__ = [
    "METRICS", "run_metrics", "arm_metrics", "difference", "is_seen", "mean_and_sd", "results_of_runs",
    "show_difference", "show_mean", "summary_rows", "main",
]  # fmt: skip

METRICS = ("AP", "AP50", "AP75", "AP90", "AP75 (class-agnostic)")
RESULTS_NAME = "coco_instances_results.json"


def run_metrics(ground_truth, results_file, task="bbox", max_dets=100):
    """``{metric: value}`` for ``METRICS``, in percent, of one file of detections in COCO's results format."""
    detections = known_detections(ground_truth, results_file)
    by_class = evaluate_coco(ground_truth, detections, task, max_dets=max_dets)
    as_one = evaluate_coco(ground_truth, detections, task, max_dets=max_dets, use_categories=False)
    values = [by_class.ap(), by_class.ap(50), by_class.ap(75), by_class.ap(90), as_one.ap(75)]
    return dict(zip(METRICS, values))


def arm_metrics(ground_truth, folder, task="bbox", max_dets=100):
    """``run_metrics`` of every run below ``folder``, or below all that a pattern matches, in the order of their paths;
    ``DataError`` if there is none.

    A folder whose own folders hold results, as ``inference_TTA`` of a run does, stands for these alone.
    """
    files = [file for place in [folder, *sorted(glob.glob(str(folder)))] for file in _results_below(Path(place))]
    files = list(dict.fromkeys(files))
    if not files:
        raise DataError(f"{folder} has no run with an evaluation: no inference/<data set>/{RESULTS_NAME} below it.")
    return [run_metrics(ground_truth, file, task, max_dets) for file in files]


def _results_below(folder):
    return sorted(folder.glob(f"*/{RESULTS_NAME}")) or [Path(path) for path in results_of_runs(folder)]


def results_of_runs(folder):
    """Paths of the detections of all plain evaluations below a folder."""
    return find_below(folder, os.path.join("inference", "*", RESULTS_NAME))


def summary_rows(arms):
    """Rows ``[arm, runs, "mean +- SD", ...]`` and, from the second arm on, the difference to the first with its error.

    Args:
        arms: dict of name to list of metrics (``arm_metrics``).

    A difference is "no difference seen" if it is under two standard errors of itself; with a single run there is none.
    """
    names, runs = list(arms), list(arms.values())
    rows = []
    for name, own in zip(names, runs):
        cells = [show_mean([run[metric] for run in own]) for metric in METRICS]
        first = [run["AP"] for run in runs[0]]
        delta = "" if name == names[0] else show_difference([run["AP"] for run in own], first)
        rows.append([name, len(own), *cells, delta])
    return rows


def mean_and_sd(values):
    """Mean and standard deviation (of a sample, n - 1) of one value or more; the latter is None for a single one."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def difference(values, reference):
    """Mean of ``values`` minus that of ``reference``, and its standard error; the latter is None for single runs."""
    delta = statistics.mean(values) - statistics.mean(reference)
    if min(len(values), len(reference)) < 2:
        return delta, None
    return delta, (statistics.variance(values) / len(values) + statistics.variance(reference) / len(reference)) ** 0.5


def is_seen(delta, error):
    """Whether there is a difference of two standard errors or more; None where there is no standard error."""
    return None if error is None else delta != 0 and abs(delta) >= 2 * error


def show_mean(values):
    """``mean +- SD`` as text."""
    mean, sd = mean_and_sd(values)
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} +- {sd:.2f}"


def show_difference(values, reference):
    """The difference of the means with its standard error as text, and "no difference seen" where it is none."""
    delta, error = difference(values, reference)
    if error is None:
        return f"{delta:+.2f}"
    return f"{delta:+.2f} (SE {error:.2f}{'' if is_seen(delta, error) else ', no difference seen'})"


@command("python -m d2_balanced.evaluation.summary")
def main(argv=None):
    """The command at the top of this module; prints a Markdown table and returns its rows."""
    args = argument_parser().parse_args(argv)
    folders = dict(_split(arm) for arm in args.arms)
    if len(folders) < len(args.arms):
        raise ConfigError(f"Two arms have one name: {', '.join(args.arms)}")
    ground_truth = GroundTruth.from_file(args.gt)
    arms = {name: arm_metrics(ground_truth, folder, args.task, args.max_dets) for name, folder in folders.items()}
    rows = summary_rows(arms)
    headers = ["arm", "runs", *METRICS, "AP against the first"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return rows


def _split(arm):
    name, separator, folder = arm.partition("=")
    if not (name and separator and folder):
        raise ConfigError(f"{arm!r} is not of the form NAME=FOLDER")
    return name, folder


if __name__ == "__main__":
    main()
