"""AP after every stage of a trained cascade or loop (R3-CNN, table 2; the comparison of stages in Cascade R-CNN):

    python -m d2_balanced.analysis.ap_by_stage --config-file CONFIG --weights model_final.pth --output by_stage
    python -m d2_balanced.analysis.ap_by_stage --config-file CONFIG --weights runs/seed*/model_final.pth \\
        --val-json val.json --val-images val --up-to 5 --output by_stage

"after n" is the detector that stops after n stages: boxes of stage n, scores (and interleaved masks) merged over the
stages 1 to n, as with ``MODEL.BALANCED.STAGES.NUM_TEST n``. "stage n alone" has the scores of stage n only. Of several
checkpoints (seeds) the table has mean and standard deviation. Everything is in the folder ``--output``: stages.md,
stages.json, stages.csv, and every evaluation in ``<row>/<checkpoint's number>/inference/``.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple, Optional

from tabulate import tabulate

from ..arguments.ap_by_stage import argument_parser
from ..engine.build import check_data
from ..evaluation.summary import show_mean
from ..evaluation.write_results import csv_text, without_nan, write_text
from ..utils.command import command
from ..utils.errors import ConfigError, usage
from .checkpoints import load_each, open_for_evaluation, parse

__all__ = ["Row", "evaluate_rows", "main", "stage_rows"]

_METRICS = ("AP", "AP50", "AP75", "AP90")


class Row(NamedTuple):
    """A row of the table: stop after ``num_stages`` and merge their scores by ``merge`` (``None``: as set)."""

    name: str
    num_stages: int
    merge: Optional[str] = None


def stage_rows(stages, up_to=None):
    """The rows of the table for these ``Stages``.

    Args:
        up_to: the most stages; ``None``: as many as there are in training or at inference.

    Raises ``ValueError`` if the stages cannot be run that many times.
    """
    most = max(stages.num_train, stages.num_test) if up_to is None else up_to
    stages.for_inference(most, stages.merge)
    alone = [Row(f"stage {n} alone", n, "last") for n in range(2, most + 1)]
    return [Row(f"after {n}", n) for n in range(1, most + 1)] + alone


def evaluate_rows(experiment, model, rows, folders):
    """Evaluate the model on the config's test set, once for each row. The model's stages are restored at the end.

    Args:
        folders: ``{row's name: its output folder}``.

    Returns ``{row's name: {task: {metric: value}}}``, on the main process only.
    """
    heads, results = model.roi_heads, {}
    own = heads.stages
    try:
        for row in rows:
            heads.stages = own.for_inference(row.num_stages, row.merge or own.merge)
            heads.mask_branch.check(heads)
            experiment.set_run(output_dir=folders[row.name])
            results[row.name] = experiment.evaluate(model)
    finally:
        heads.stages = own
    return results


def table(results):
    """A Markdown table of what ``evaluate_rows`` returned: the mean over checkpoints, and +- the standard deviation."""
    tasks = [task for task in ("bbox", "segm") if task in next(iter(results[0].values()))]
    lines = []
    for name in results[0]:
        values = [[result[name][task][metric] for result in results] for task in tasks for metric in _METRICS]
        lines.append([name, *map(show_mean, values)])
    headers = ["", *(f"{task} {metric}" for task in tasks for metric in _METRICS)]
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


@command("python -m d2_balanced.analysis.ap_by_stage")
def main(argv=None):
    """The command at the top of this module; prints the table and returns the results, one dict a checkpoint."""
    args = parse(argument_parser(), argv)
    results = _run(args)
    _write(args.output, args.weights, results)
    return results


def _write(folder, weights, results):
    text = table(results)
    write_text(os.path.join(folder, "stages.md"), text + "\n")
    checkpoints = [{"weights": path, "rows": without_nan(result)} for path, result in zip(weights, results)]
    write_text(os.path.join(folder, "stages.json"), json.dumps(checkpoints, indent=1) + "\n")
    lines = [
        (path, name, task, metric, value)
        for path, result in zip(weights, results)
        for name, tasks in result.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    ]
    write_text(os.path.join(folder, "stages.csv"), csv_text(["weights", "row", "task", "metric", "value"], lines))
    print(text)


def _run(args):
    experiment = open_for_evaluation(args)
    check_data(experiment, experiment.test_datasets)
    model = experiment.build_model()
    if not hasattr(getattr(model, "roi_heads", None), "stages"):
        raise ConfigError("stages: the model has no stages; it needs MODEL.ROI_HEADS.NAME BalancedROIHeads.")
    with usage("--up-to", ValueError):
        rows = stage_rows(model.roi_heads.stages, args.up_to)
    results = []
    for number, _ in enumerate(load_each(model, args.weights), start=1):
        folders = {row.name: os.path.join(args.output, row.name.replace(" ", "_"), str(number)) for row in rows}
        results.append(evaluate_rows(experiment, model, rows, folders))
    return results


if __name__ == "__main__":
    main()
