"""results.csv, results.png and adaptive.png: a run's history as a table and as curves, made from its metrics.json."""

from __future__ import annotations

import csv
import math
import os
import time
from typing import Dict, List, Optional

from detectron2.utils.events import EventWriter

from ..utils.atomic import atomic_write
from ..utils.json_lines import read_metrics

__all__ = ["ResultsTable", "plot_adaptive", "plot_results", "results_rows", "write_results"]

_TIMING = ("time", "data_time", "eta_seconds")
_FIRST = ("iteration", "epoch", "total_loss")
_ADAPTIVE = "adaptive values"
_PANELS = ("loss", "AP", "learning rate", "samples per image", "accuracy on samples", _ADAPTIVE)
_METRICS = ("AP", "AR", "MR", "JI", "recall")
_PLOTTED = ("AP", "AP50", "AP75", "AP90", "AR@100", "AR@1000", "MR")  # of the metrics; the table has them all


def results_rows(metrics_path: str, batches_per_epoch: Optional[float]) -> List[Dict[str, float]]:
    """One row per log period or evaluation: iteration, epoch, losses, learning rate, metrics, counts, adaptive values.

    Args:
        metrics_path: a run's metrics.json; a missing or empty file gives no rows.
        batches_per_epoch: optimizer steps in one pass over the training set; None if unknown.

    AP of single classes is left out (it is in per_class.csv), and so is what only measures the machine's speed.
    """
    rows: Dict[int, Dict[str, float]] = {}
    for line in read_metrics(metrics_path):
        row = rows.setdefault(line["iteration"], {})
        row.update({name: value for name, value in line.items() if not _is_left_out(name)})
        if batches_per_epoch:
            row["epoch"] = round((line["iteration"] + 1) / batches_per_epoch, 4)
    return [rows[iteration] for iteration in sorted(rows)]


def _is_left_out(name: str) -> bool:
    return name in _TIMING or ("AP-" in name and not name.endswith("AP-agnostic"))


def _columns(rows: List[Dict[str, float]]) -> List[str]:
    names = {name for row in rows for name in row} - set(_FIRST)
    return list(_FIRST) + sorted(names, key=lambda name: (_PANELS.index(_panel(name)), name))


def write_results(rows: List[Dict[str, float]], path: str) -> None:
    """Write ``rows`` as CSV; a value that a row has not is empty."""
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, _columns(rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _panel(name: str) -> str:
    value = name.rsplit("/", 1)[-1]
    if "loss" in value:
        return "loss"
    if name == "lr":
        return "learning rate"
    if value.startswith(_METRICS):
        return "AP"
    if "accuracy" in name or "/false_" in name:
        return "accuracy on samples"
    return "samples per image" if "num_" in name else _ADAPTIVE


def _curves(rows: List[Dict[str, float]]) -> Dict[str, Dict[str, List[tuple]]]:
    """``{panel: {name: [(iteration, value), ...]}}``, without panels that have no values."""
    panels: Dict[str, Dict[str, List[tuple]]] = {panel: {} for panel in _PANELS}
    for name in _columns(rows):
        panel = _panel(name)
        if name in ("iteration", "epoch", "memory_mb") or (panel == "AP" and name.rsplit("/", 1)[-1] not in _PLOTTED):
            continue
        points = [(row["iteration"], row[name]) for row in rows if name in row]
        if points:
            panels[panel][name] = points
    return {panel: curves for panel, curves in panels.items() if curves}


def plot_results(rows: List[Dict[str, float]], path: str) -> None:
    """Draw ``rows`` as curves over iterations, one panel per kind of value, into a PNG; nothing if there are none."""
    _draw({panel: curves for panel, curves in _curves(rows).items() if panel != _ADAPTIVE}, path)


def plot_adaptive(rows: List[Dict[str, float]], path: str) -> None:
    """Draw what adapted during training, ``<component>/<value>``, into a PNG; nothing for what has one point or none.

    One panel per component, so that a value is seen beside the statistic that it follows.
    """
    panels: Dict[str, Dict[str, List[tuple]]] = {}
    for name, points in _curves(rows).get(_ADAPTIVE, {}).items():
        component, _, value = name.rpartition("/")
        if len(points) > 1:
            panels.setdefault(component, {})[value] = points
    _draw(panels, path)


def _draw(panels: Dict[str, Dict[str, List[tuple]]], path: str) -> None:
    if not panels:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.5 * columns, 3.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (panel, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, number)
        for name, points in curves.items():
            axes.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        axes.set(title=panel, xlabel="iteration")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=100)


class ResultsTable(EventWriter):
    """Keeps results.csv up to date with metrics.json, and draws results.png and adaptive.png when training ends.

    Put it after the writer of metrics.json.

    Args:
        output_dir: the run's folder.
        batches_per_epoch: optimizer steps in one pass over the training set; None if unknown.
    """

    SECONDS_BETWEEN_WRITES = 10.0  # the whole table is written each time

    def __init__(self, output_dir: str, batches_per_epoch: Optional[float]):
        self._output_dir = output_dir
        self._batches_per_epoch = batches_per_epoch
        self._written_at = -self.SECONDS_BETWEEN_WRITES

    def _rows(self):
        return results_rows(os.path.join(self._output_dir, "metrics.json"), self._batches_per_epoch)

    def write(self):
        if time.monotonic() - self._written_at >= self.SECONDS_BETWEEN_WRITES:
            write_results(self._rows(), os.path.join(self._output_dir, "results.csv"))
            self._written_at = time.monotonic()

    def close(self):
        rows = self._rows()
        write_results(rows, os.path.join(self._output_dir, "results.csv"))
        plot_results(rows, os.path.join(self._output_dir, "results.png"))
        plot_adaptive(rows, os.path.join(self._output_dir, "adaptive.png"))
