"""Runs in MLflow and in Weights & Biases: a writer each, beside metrics.json; the libraries are optional extras.

Where they send what they get is their own matter: ``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``WANDB_API_KEY``, ...
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from typing import Any, Callable, Dict, List, Mapping

from detectron2.utils.events import EventWriter, get_event_storage

from ..config.yaml_files import parse_yaml
from ..utils.atomic import atomic_write
from ..utils.errors import LaunchError, usage
from ..utils.extras import import_extra

__all__ = ["KEYS", "MlflowTracker", "Tracker", "WandbTracker", "build_trackers", "require_trackers"]

KEYS = {"mlflow": "TRACKING.MLFLOW / train.tracking.mlflow", "wandb": "TRACKING.WANDB / train.tracking.wandb"}
_IDS = "tracking.json"
_FILES = ("config.yaml", "log.txt", "results.csv", "results.png")
_PARAMETERS = ("batch_size", "accumulate", "seed", "amp", "device", "weights")

logger = logging.getLogger(__name__)


def require_trackers(tracking: Mapping[str, str]) -> None:
    """Raise ``InstallError`` for a tracker that is asked for, ``{name: project}``, and whose library is not there."""
    for name, project in tracking.items():
        if project:
            import_extra(name, name, KEYS[name])


def build_trackers(experiment, trainer, start_iter: int) -> List[EventWriter]:
    """The writers that the config asks for."""
    kinds = {"mlflow": MlflowTracker, "wandb": WandbTracker}
    tracking = experiment.settings.tracking
    return [kinds[name](experiment, tracking[name], start_iter, lambda: _state(trainer)) for name in kinds if tracking[name]]


def _state(trainer) -> str:
    return "failed" if not trainer.completed else "interrupted" if trainer.interrupted else "finished"


class Tracker(EventWriter):
    """What both have in common: each value once, at the iteration that it belongs to; one run in spite of resumes.

    The run's id is kept in the output folder, so that a resumed training goes on in it. What fails while training is
    logged once, and training goes on without the tracker; at the start it is a ``LaunchError`` (no server, no account).

    Args:
        experiment: its settings, schedule and config are the run's parameters.
        project: the name of MLflow's experiment, of W&B's project.
        start_iter: the first iteration that this process trains.
        state: says at the end "finished", "interrupted" or "failed".
    """

    name = ""

    def __init__(self, experiment, project: str, start_iter: int, state: Callable[[], str]):
        self._folder = experiment.settings.output_dir
        self._state = state
        self._last_write = start_iter - 1
        self._works = True
        known = self._read_ids()
        with usage(f"{KEYS[self.name]} {project!r}: tracking cannot begin", Exception, error=LaunchError):
            run_id = self._start(experiment, project, known.get(self.name, "") if start_iter else "")
        with atomic_write(os.path.join(self._folder, _IDS), "w") as file:
            json.dump({**known, self.name: run_id}, file)
        logger.info("%s: %s, run %s", KEYS[self.name], project, run_id)

    def write(self):
        latest, by_iteration = get_event_storage().latest(), {}
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write and math.isfinite(value):
                by_iteration.setdefault(iteration, {})[name] = float(value)
        for iteration in sorted(by_iteration):
            self._try(self._log, by_iteration[iteration], iteration)
        self._last_write = max([self._last_write, *by_iteration])

    def close(self):
        there = [path for path in (os.path.join(self._folder, name) for name in _FILES) if os.path.isfile(path)]
        self._try(self._end, there, self._state())

    def _try(self, do: Callable, *arguments) -> None:
        if not self._works:
            return
        try:
            do(*arguments)
        except Exception:  # of its library, of the network
            self._works = False
            logger.exception("%s: this run is no longer tracked; training goes on.", KEYS[self.name])

    def _read_ids(self) -> Dict[str, str]:
        try:
            with open(os.path.join(self._folder, _IDS), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):  # none, or a damaged one: a new run
            return {}
        return found if isinstance(found, dict) else {}

    def _start(self, experiment, project: str, run_id: str) -> str:
        """Begin, or go on with ``run_id``; returns the run's id."""
        raise NotImplementedError

    def _log(self, values: Dict[str, float], iteration: int) -> None:
        raise NotImplementedError

    def _end(self, files: List[str], state: str) -> None:
        raise NotImplementedError


class MlflowTracker(Tracker):
    """MLflow's tracking: metrics, a few parameters, and at the end config, log and results as artifacts."""

    name = "mlflow"
    _STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

    def _start(self, experiment, project, run_id):
        mlflow = import_extra("mlflow", "mlflow", KEYS["mlflow"])
        self._client, self._metric = mlflow.MlflowClient(), mlflow.entities.Metric
        if run_id:
            self._client.set_terminated(run_id, "RUNNING")
            self._run_id = run_id
            return run_id
        known = self._client.get_experiment_by_name(project)
        number = known.experiment_id if known else self._client.create_experiment(project)
        run = self._client.create_run(number, run_name=os.path.basename(os.path.abspath(self._folder)))
        self._run_id = run.info.run_id
        for key, value in _parameters(experiment).items():
            self._client.log_param(self._run_id, key, value)
        return self._run_id

    def _log(self, values, iteration):
        now = int(1000 * time.time())
        metrics = [self._metric(re.sub(r"[^\w/. -]", "_", key), value, now, iteration) for key, value in values.items()]
        for start in range(0, len(metrics), 1000):  # as many as one call takes
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])

    def _end(self, files, state):
        for path in files:
            self._client.log_artifact(self._run_id, path)
        self._client.set_terminated(self._run_id, self._STATES[state])


class WandbTracker(Tracker):
    """Weights & Biases: metrics, the whole config, and at the end config, log and results as files."""

    name = "wandb"

    def _start(self, experiment, project, run_id):
        wandb = import_extra("wandb", "wandb", KEYS["wandb"])
        text = experiment.config_text()
        self._run = wandb.init(
            project=project, name=os.path.basename(os.path.abspath(self._folder)), dir=self._folder,
            config=parse_yaml(text, "the config") if text else _parameters(experiment),
            id=run_id or None, resume="allow" if run_id else None,
        )  # fmt: skip
        return self._run.id

    def _log(self, values, iteration):
        self._run.log(values, step=iteration)

    def _end(self, files, state):
        for path in files:
            self._run.save(path, base_path=self._folder, policy="now")
        self._run.finish(exit_code=int(state == "failed"))


def _parameters(experiment) -> Dict[str, Any]:
    settings, schedule = experiment.settings, experiment.schedule
    return {"lr": schedule.lr, "max_iter": schedule.max_iter, **{name: getattr(settings, name) for name in _PARAMETERS}}
