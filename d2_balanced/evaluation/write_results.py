"""Files and tables of an evaluation. Undefined values (NaN) are null in JSON, empty in CSV, and "-" in tables."""

import csv
import io
import json
import math
import os

from tabulate import tabulate

from ..utils.atomic import atomic_write
from ..utils.errors import DataError
from ..utils.json_file import read_json

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets start to compute at

__all__ = ["class_table", "csv_rows", "csv_text", "read_report", "summary_table", "without_nan", "write_reports", "write_text"]


def write_text(path, text):
    """Writes a whole file or none of it (an interrupted run leaves the old one), making the folder if need be."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with atomic_write(path, "w") as file:
        file.write(text)


def write_reports(folder, report):
    """metrics.json (all), metrics.csv (task, metric, value) and per_class.csv (one row per task and class).

    ``report``: ``{"metrics": {task: {metric: value}}, "per_class": {task: [row dicts]}, "notes": [...], ...}``.
    """
    write_text(os.path.join(folder, "metrics.json"), json.dumps(without_nan(report), indent=1) + "\n")
    rows = [(task, metric, value) for task, values in report["metrics"].items() for metric, value in values.items()]
    write_text(os.path.join(folder, "metrics.csv"), csv_text(["task", "metric", "value"], rows))
    per_class = [{"task": task, **row} for task, rows in report["per_class"].items() for row in rows]
    columns = list(dict.fromkeys(key for row in per_class for key in row))
    class_rows = [[row.get(column) for column in columns] for row in per_class]
    write_text(os.path.join(folder, "per_class.csv"), csv_text(columns, class_rows))


def read_report(path):
    """The content of a metrics.json that :func:`write_reports` wrote: ``report``, with None for NaN.

    ``DataError``, naming the path, if it cannot be read or is another kind of file.
    """
    report = read_json(path)
    tasks = report.get("metrics") if isinstance(report, dict) else None
    if not isinstance(tasks, dict) or not all(isinstance(metrics, dict) for metrics in tasks.values()):
        raise DataError(f"{path} is not the metrics.json of an evaluation: it has no metrics by task.")
    return report


def summary_table(metrics, columns=14):
    """Metrics of one task, ``columns`` side by side (the 14 of AP fit one terminal line)."""
    items = list(metrics.items())
    chunks = [dict(items[i : i + columns]) for i in range(0, len(items), columns)]
    return "\n\n".join(tabulate([[_shown(v) for v in chunk.values()]], headers=list(chunk)) for chunk in chunks)


def class_table(rows, columns=("class", "objects", "AP", "AP50", "AP75", "AP90")):
    """One line per class, from the rows of ``CocoMetrics.per_class``."""
    cells = [[_shown(row[column]) for column in columns] for row in rows]
    return tabulate(cells, headers=columns, disable_numparse=[0])  # a class "007" is no 7


def _shown(value):
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return value


def csv_text(header, rows):
    """A CSV file's text; NaN is left empty, and text that a spreadsheet would take for a formula gets a ' before it."""
    return csv_rows([header, *rows])


def csv_rows(rows):
    """Lines of a CSV file, as :func:`csv_text` has them; an empty text of none."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def _cell(value):
    if isinstance(value, str):
        text = value.replace("\r", " ")  # which the csv module leaves unquoted
        return "'" + text if value.startswith(_FORMULA) else text
    return "" if _is_nan(value) else value


def _is_nan(value):
    return isinstance(value, float) and math.isnan(value)


def without_nan(value):
    """Nested dicts and lists with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if _is_nan(value) else value
