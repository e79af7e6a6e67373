"""The figures of a finished run: what its evaluation wrote, class-agnostic AP75, the model's size, and its costs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Container, Dict, List, Optional, Tuple

from detectron2.data import MetadataCatalog

from ..analysis.parameters import count_parameters, model_without_values
from ..data.coco_paths import read_categories
from ..evaluation.compare import load_metrics
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.summary import METRICS, RESULTS_NAME, run_metrics
from ..utils.atomic import atomic_write
from ..utils.json_file import read_json
from ..utils.json_lines import read_metrics
from .plan import Run
from .speed import SPEED_FILE
from .state import Task

__all__ = ["AGNOSTIC", "COSTS", "PARAMETERS", "history", "measure", "parameters_in_thousands", "task_and_name"]

AGNOSTIC = METRICS[-1]
PARAMETERS = "params_K"
COSTS = ("FPS", "step_s", "memory_GB", "size_MB")
"""Of this machine (``speed.py``), and the size of a checkpoint; ``speed`` is another name of ``FPS``."""
_CACHE = "class_agnostic.json"


def measure(task: Task, metrics: List[str]) -> Dict[str, Optional[float]]:
    """``{metric: value, or None where there is none}`` of a finished task, in percent.

    ``AP75 (class-agnostic)``, which no table has, is computed from the saved detections once and kept beside them. A
    run with test-time augmentation has the figures of that. Costs are ``None`` until they have been measured
    (``speed.py``).
    Raises ``ValueError``, which names the file, where results cannot be read.
    """
    folder = os.path.join(task.folder, task.run.results, task.run.test_set)
    tasks = load_metrics(os.path.join(folder, "metrics.json"))
    values = {}
    for metric in metrics:
        if metric not in (AGNOSTIC, *COSTS, "speed"):
            kind, name = task_and_name(metric, tasks)
            values[metric] = tasks.get(kind, {}).get(name)
    costs = _costs(task)
    values.update({metric: costs.get("FPS" if metric == "speed" else metric) for metric in metrics if metric not in values})
    return {**values, AGNOSTIC: _agnostic(task, folder)} if AGNOSTIC in metrics else values


def _costs(task: Task) -> Dict[str, float]:
    """What ``speed.json`` says, and the size of the last checkpoint, optimizer included, in 2^20 bytes."""
    costs, path = {}, os.path.join(task.folder, SPEED_FILE)
    if os.path.exists(task.weights):
        costs["size_MB"] = os.path.getsize(task.weights) / 2**20
    if os.path.exists(path):
        costs.update(read_json(path))
    return costs


def task_and_name(metric: str, tasks: Container[str]) -> Tuple[str, str]:
    """``AP`` is of boxes; ``BAP`` and ``SAP`` of boxes and masks; ``AR@`` of proposals where ``tasks`` has them."""
    task, _, name = metric.rpartition("/")
    if not task and metric[:3] in ("BAP", "SAP"):
        task, name = {"B": "bbox", "S": "segm"}[metric[0]], metric[1:]
    if not task:
        task = "box_proposals" if metric.startswith("AR") and "box_proposals" in tasks else "bbox"
    return task, name


def history(task: Task, metric: str) -> Dict[int, float]:
    """``{iteration: value}`` of all evaluations of a training; empty where the task is an evaluation alone."""
    lines = [] if task.source else read_metrics(os.path.join(task.folder, "metrics.json"))
    tasks = {name.split("/")[0] for line in lines for name in line}
    key = "/".join(task_and_name(metric, tasks))
    return {line["iteration"] + 1: line[key] for line in lines if key in line}


def _agnostic(task: Task, folder: str) -> Optional[float]:
    results, cache = os.path.join(folder, RESULTS_NAME), os.path.join(task.folder, _CACHE)
    ground_truth = task.run.options.data.val_json or MetadataCatalog.get(task.run.test_set).get("json_file", "")
    if not (os.path.exists(results) and os.path.exists(ground_truth)):
        return None
    if os.path.exists(cache) and os.path.getmtime(cache) >= os.path.getmtime(results):
        try:
            return json.loads(Path(cache).read_text(encoding="utf-8"))[AGNOSTIC]
        except (ValueError, KeyError, TypeError):
            pass  # damaged: it is made again
    value = run_metrics(GroundTruth.from_file(ground_truth), results)[AGNOSTIC]
    with atomic_write(cache, "w") as file:
        json.dump({AGNOSTIC: value}, file)
    return value


def parameters_in_thousands(run: Run) -> float:
    """Thousands of trainable parameters of the run's model, counted without building its values."""
    experiment, data = run.experiment(), run.options.data
    if data.train_json or data.val_json:
        experiment.num_classes = len(read_categories(data.train_json or data.val_json))
    return count_parameters(model_without_values(experiment))["all"] / 1000
