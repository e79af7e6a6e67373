"""A table as figures, a panel for every row beside the baseline: what training reaches when, and at which IoU a gain is."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..analysis.panels import curve_figure
from ..evaluation.coco_metrics import IOU_PERCENTS
from ..evaluation.summary import difference, mean_and_sd
from ..utils.errors import UsageError
from .measure import history, measure
from .state import Task

__all__ = ["by_iou", "over_iterations", "save_figures"]

_COLUMNS = 4


def save_figures(path: str, title: str, metric: str, baseline: str, tasks: Mapping[str, Sequence[Task]]) -> None:
    """Write ``<path>-over-iterations.png`` and ``<path>-by-iou.png``, where there is something to draw.

    Args:
        metric: the table's first.
        tasks: the finished ones of every row, by its name, the ``baseline``'s included.
    """
    figures = {"over-iterations": over_iterations(title, metric, baseline, tasks), "by-iou": by_iou(title, baseline, tasks)}
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(f"{path}-{name}.png", dpi=80)


def over_iterations(title: str, metric: str, baseline: str, tasks: Mapping[str, Sequence[Task]]):
    """``metric`` over the iterations of training, mean +- SD over the seeds; rows that train nothing are left out."""
    curves = {}
    for row, of_seeds in tasks.items():
        histories = [_history(task, metric) for task in of_seeds]
        points = sorted(set.intersection(*map(set, histories))) if histories else []
        if points:
            values = [mean_and_sd([of_seed[point] for of_seed in histories]) for point in points]
            curves[row] = _curve(points, values)
    reference = {baseline: curves.pop(baseline)} if baseline in curves else {}
    panels = [(row, "iteration", metric, {**reference, "this row": curve}) for row, curve in curves.items()]
    return curve_figure(f"{title}\nmean +- SD over the seeds", panels, columns=_COLUMNS)


def by_iou(title: str, baseline: str, tasks: Mapping[str, Sequence[Task]]):
    """AP at each IoU threshold minus the baseline's, +- two standard errors."""
    metrics = [f"AP{percent}" for percent in IOU_PERCENTS]
    values = {row: _of_seeds(of_seeds, metrics) for row, of_seeds in tasks.items()}
    reference = values.pop(baseline, None)
    panels = []
    for row, own in values.items() if reference else ():
        if own:
            gains = [difference(own[metric], reference[metric]) for metric in metrics]
            curve = _curve([percent / 100 for percent in IOU_PERCENTS], gains, errors=2)
            panels.append((row, "IoU threshold", f"AP against {baseline}", {"this row": curve}, {"zero": True}))
    return curve_figure(f"{title}\ndifference +- 2 standard errors", panels, columns=_COLUMNS)


def _history(task: Task, metric: str) -> Dict[int, float]:
    try:
        return history(task, metric)
    except UsageError:  # a damaged file costs a panel, not the table
        return {}


def _of_seeds(tasks: Sequence[Task], metrics: List[str]) -> Optional[Dict[str, List[float]]]:
    """``{metric: [value of each seed]}``; None without a seed, or where one has not all of them."""
    measured = [measure(task, metrics) for task in tasks]
    values = {metric: [one[metric] for one in measured] for metric in metrics}
    return None if not measured or any(None in of_seeds for of_seeds in values.values()) else values


def _curve(x, means_and_spreads, errors: float = 1):
    means, spreads = zip(*means_and_spreads)
    return np.array(x), np.array(means), errors * np.array([spread or 0.0 for spread in spreads])
