"""A table's results as Markdown, CSV and figures: what was measured here, and beside it what the paper prints."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence

from tabulate import tabulate

from ..evaluation.summary import difference, is_seen, mean_and_sd, show_difference, show_mean
from ..evaluation.write_results import write_text
from ..utils.errors import UsageError
from .figures import save_figures
from .files import Table
from .measure import AGNOSTIC, COSTS, PARAMETERS, measure, parameters_in_thousands
from .plan import Options, PlannedRow
from .state import Task

__all__ = ["RowResult", "measure_row", "table_csv", "table_markdown", "write_table"]

_NOTHING = "-"
_COSTS = (*COSTS, "speed")
_COSTS_ARE = (
    "Costs are this machine's: FPS, or speed, are images a second at inference, one at a time; step_s seconds of a training "
    "step, without loading; memory_GB the most memory in one, on the CPU of the whole process; size_MB a checkpoint's."
)


@dataclass
class RowResult:
    """A row with what its finished runs measured: ``{metric: [value of each seed]}``.

    ``remark`` says why there is nothing, what failed, or which row is the same run.
    """

    planned: PlannedRow
    tasks: List[Task] = field(default_factory=list)
    values: Dict[str, List[float]] = field(default_factory=dict)
    remark: str = ""

    @property
    def name(self) -> str:
        return self.planned.row.name

    @property
    def seeds(self) -> List[int]:
        return [task.seed for task in self.tasks]


def measure_row(planned: PlannedRow, tasks: Sequence[Task], problems: Mapping[Task, str]) -> RowResult:
    """The figures of a row's finished tasks; of others, and of results that cannot be read, the first line of the
    problem becomes a remark."""
    if planned.run is None:
        return RowResult(planned, remark=planned.reason)
    metrics = [metric for metric in dict.fromkeys([*planned.table.metrics, *COSTS]) if metric != PARAMETERS]
    found, unreadable = _measure_each([task for task in tasks if task not in problems], [*metrics, AGNOSTIC])
    told = {**problems, **unreadable}
    remark = _grouped({task.seed: told[task].splitlines()[0] for task in tasks if task in told})
    measured = list(found.values())
    values = {metric: [one[metric] for one in measured] for metric in (measured[0] if measured else ())}
    for cost in _COSTS:  # the same whatever the seed: those that were measured stand for all
        values[cost] = [value for value in values.get(cost, ()) if value is not None]
    values = {metric: of_seeds for metric, of_seeds in values.items() if of_seeds and None not in of_seeds}
    if PARAMETERS in planned.table.metrics:
        values[PARAMETERS] = [parameters_in_thousands(planned.run)]
    return RowResult(planned, list(found), values, remark)


def _measure_each(tasks: Sequence[Task], metrics: List[str]):
    """``({task: its figures}, {task: why its results cannot be read})``: one damaged file costs one run, not the table."""
    found, unreadable = {}, {}
    for task in tasks:
        try:
            found[task] = measure(task, metrics)
        except UsageError as error:
            unreadable[task] = str(error)
    return found, unreadable


def _grouped(problems: Mapping[int, str]) -> str:
    """``{seed: problem}`` as text, each problem once."""
    seeds: Dict[str, List[str]] = {}
    for seed, problem in problems.items():
        seeds.setdefault(problem, []).append(str(seed))
    return "; ".join(f"seed {', '.join(numbers)}: {problem}" for problem, numbers in seeds.items())


def write_table(folder: str, table: Table, results: List[RowResult], options: Options) -> str:
    """Write ``<folder>/<paper>/<table>.md`` and ``.csv``, and figures beside them; returns the Markdown's path.

    At another scale than tiny, on data given by paths, or with overrides the name says so, for these are other results.
    """
    path = os.path.join(folder, table.paper, table.name + _variant(options))
    write_text(path + ".md", table_markdown(table, results, options))
    write_text(path + ".csv", table_csv(table, results, options))
    baseline = _baseline(table, results)
    if baseline:
        same = {result.name for result in results if result.planned.run is baseline.planned.run} - {baseline.name}
        rows = {result.name: result.tasks for result in results if result.name not in same}
        save_figures(path, table.title, _first_metric(table.metrics), baseline.name, rows)
    return path + ".md"


def _variant(options: Options) -> str:
    """``-coco``, and for data or overrides six hexadecimal digits; empty for the tiny scale on the configs' data."""
    scale = "" if options.scale == "tiny" else f"-{options.scale}"
    if not any(options.data) and not options.overrides:
        return scale
    content = json.dumps([*options.data, {key: str(value) for key, value in options.overrides.items()}], sort_keys=True)
    return f"{scale}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def table_markdown(table: Table, results: List[RowResult], options: Options) -> str:
    """Mean +- SD over the seeds, the difference to the baseline with its standard error, and the paper's figures."""
    measured = _measured_columns(table, results)
    compared = [m for m in measured if m != PARAMETERS and m in (_first_metric(measured), AGNOSTIC)]
    printed = [m for m in table.metrics if any(m in r.planned.row.paper for r in results)]
    baseline = _baseline(table, results)
    headers = ["row", "runs", *measured, *(f"{metric} against {baseline.name}" for metric in compared if baseline)]
    rows = []
    for result in results:
        cells = [_shown(result, metric) for metric in measured]
        deltas = [_delta(result, baseline, metric) for metric in compared if baseline]
        figures = [result.planned.row.paper.get(metric, _NOTHING) for metric in printed]
        rows.append([result.name, len(result.seeds) or _NOTHING, *cells, *deltas, *figures])
    text = tabulate(rows, headers + [f"the paper's {m}" for m in printed], tablefmt="github", disable_numparse=True)
    parts = [f"# {table.paper}: {table.title}", _introduction(table, options, measured), text, *_remarks(results)]
    return "\n\n".join(parts) + "\n"


def _measured_columns(table: Table, results: List[RowResult]) -> List[str]:
    """The table's metrics, but for costs that were not measured; class-agnostic AP75, and all costs where there are any."""
    there = {metric for result in results for metric in result.values}
    columns = [metric for metric in table.metrics if metric in there or metric not in _COSTS]
    more = [AGNOSTIC] + [cost for cost in COSTS if "step_s" in there and not (cost == "FPS" and "speed" in columns)]
    return columns + [metric for metric in more if metric in there and metric not in columns]


def _first_metric(measured: Sequence[str]) -> str:
    return next((metric for metric in measured if metric != PARAMETERS), "")


def _baseline(table: Table, results: List[RowResult]) -> Optional[RowResult]:
    """The table's baseline, without one in the file the first row that can run; None until it has been run."""
    able = [result for result in results if result.planned.run]
    baseline = next((result for result in able if result.name == (table.baseline or able[0].name)), None)
    return baseline if baseline and baseline.seeds else None


def _introduction(table: Table, options: Options, measured: List[str]) -> str:
    scale = {"tiny": "the quick recipe (tiny), not the paper's", "coco": "the paper's (coco)"}[options.scale]
    data = ", ".join(f"`{path}`" for path in (options.data.train_json, options.data.val_json) if path)
    overrides = " ".join(f"{key} {value}" for key, value in options.overrides.items())
    lines = [
        f"Scale: {scale}. Data: {data or 'those of the configs'}."
        + (f" Overrides in all rows: `{overrides}`." if overrides else ""),
        "Measured here: mean +- SD over the runs (seeds). A difference under two standard errors (SE) is "
        '"no difference seen".',
        "Columns headed \"the paper's\" are as printed in the paper, on its data; they are no measurement of ours.",
    ]
    unmeasured = [metric for metric in table.metrics if metric in _COSTS and metric not in measured]
    lines += [f"Not measured here: {', '.join(unmeasured)} (--speed measures what a run costs)."] if unmeasured else []
    lines += [_COSTS_ARE] if set(_COSTS) & set(measured) else []
    return "\n".join(lines + ([f"About the paper's table: {table.note}"] if table.note else []))


def _shown(result: RowResult, metric: str) -> str:
    values = result.values.get(metric)
    if not values:
        return _NOTHING
    return f"{values[0]:.0f}" if metric == PARAMETERS else show_mean(values)


def _delta(result: RowResult, baseline: RowResult, metric: str) -> str:
    own, reference = result.values.get(metric), baseline.values.get(metric)
    if result is baseline or not own or not reference:
        return ""
    if result.planned.run is baseline.planned.run:
        return "the same run"
    return show_difference(own, reference)


def _remarks(results: List[RowResult]) -> List[str]:
    """Rows that are the same run, and rows without one, as one list."""
    first: Dict[object, str] = {}
    lines = []
    for result in results:
        run = result.planned.run
        if run is not None and first.setdefault(run, result.name) != result.name:
            lines.append(f"- {result.name}: the same run as {first[run]} at this scale")
        if result.remark:
            lines.append(f"- {result.name}: {'' if run else 'not run: '}{result.remark}")
    return ["\n".join(lines)] if lines else []


_COLUMNS = ("paper", "table", "row", "scale", "metric", "runs", "mean", "sd", "difference", "standard_error",
            "difference_seen", "baseline", "papers_figure", "run", "remark")  # fmt: skip


def table_csv(table: Table, results: List[RowResult], options: Options) -> str:
    """One line for every row and metric; ``papers_figure`` is as printed in the paper, all else was measured here."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    baseline = _baseline(table, results)
    for result in results:
        for metric in dict.fromkeys([*table.metrics, *result.values]):
            writer.writerow({
                "paper": table.paper, "table": table.name, "row": result.name, "scale": options.scale, "metric": metric,
                "papers_figure": result.planned.row.paper.get(metric, ""), "remark": result.remark,
                "run": result.planned.run.name if result.planned.run else "", **_statistics(result, baseline, metric),
            })  # fmt: skip
    return text.getvalue()


def _statistics(result: RowResult, baseline: Optional[RowResult], metric: str) -> Dict[str, object]:
    values = result.values.get(metric)
    if not values:
        return {"runs": 0}
    mean, sd = mean_and_sd(values)
    cells = {"runs": len(values), "mean": mean, "sd": sd}
    if baseline and result.planned.run is not baseline.planned.run and baseline.values.get(metric):
        delta, error = difference(values, baseline.values[metric])
        cells.update(difference=delta, standard_error=error, difference_seen=is_seen(delta, error),
                     baseline=baseline.name)
    return {name: "" if value is None else value for name, value in cells.items()}
