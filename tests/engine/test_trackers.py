"""MLflow and Weights & Biases: what they are sent, across a resume; stand-ins for the libraries, and the libraries."""

import importlib
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net

from d2_balanced.engine import trackers
from d2_balanced.engine.open import open_experiment
from d2_balanced.utils.errors import InstallError, LaunchError


class Client:
    """MLflow's client, as far as it is used."""

    def __init__(self):
        self.calls = []
        self.fails = False

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"experiment {name}"

    def create_run(self, experiment, run_name):
        self.calls.append((experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_param(self, run, key, value):
        self.calls.append((run, key, value))

    def log_batch(self, run, metrics):
        if self.fails:
            raise ConnectionError("the server is gone")
        self.calls += [(run, *metric) for metric in metrics]

    def log_artifact(self, run, path):
        self.calls.append((run, os.path.basename(path)))

    def set_terminated(self, run, status):
        self.calls.append((run, status))


@pytest.fixture
def client(monkeypatch):
    client = Client()

    def metric(key, value, timestamp, step):
        return key, value, step

    library = SimpleNamespace(MlflowClient=lambda: client, entities=SimpleNamespace(Metric=metric))
    monkeypatch.setattr(importlib, "import_module", lambda name: library)
    return client


def experiment_in(folder):
    experiment = open_experiment(quick_config("faster_rcnn"), ["TRACKING.MLFLOW", "mine"])
    experiment.set_run(output_dir=str(folder))
    return experiment


def test_each_value_is_sent_once_at_its_iteration_and_a_resume_goes_on_in_the_same_run(client, tmp_path):
    (tmp_path / "config.yaml").write_text("x")
    with EventStorage(0) as storage:
        first = trackers.MlflowTracker(experiment_in(tmp_path), "mine", 0, lambda: "interrupted")
        storage.put_scalars(**{"loss": 2.0, "bbox/AP-a b(ü)": 3.0, "bad": math.nan})
        first.write()
        first.write()
        storage.iter = 5
        storage.put_scalar("loss", 1.0)
        first.write()
        first.close()
        assert ("experiment mine", tmp_path.name) in client.calls and ("r1", "lr", 0.03) in client.calls
        sent = [call for call in client.calls if len(call) == 4]
        assert sorted(sent) == [("r1", "bbox/AP-a b_ü_", 3.0, 0), ("r1", "loss", 1.0, 5), ("r1", "loss", 2.0, 0)]
        assert client.calls[-2:] == [("r1", "config.yaml"), ("r1", "KILLED")]
        assert json.loads((tmp_path / "tracking.json").read_text()) == {"mlflow": "r1"}
        client.calls.clear()
        second = trackers.MlflowTracker(experiment_in(tmp_path), "mine", 6, lambda: "finished")
        second.write()
        assert client.calls == [("r1", "RUNNING")]
        second.close()
        assert client.calls[-1] == ("r1", "FINISHED")


def test_a_tracker_that_fails_is_told_once_and_left_alone(client, tmp_path, caplog):
    with EventStorage(0) as storage:
        tracker = trackers.MlflowTracker(experiment_in(tmp_path), "mine", 0, lambda: "finished")
        client.fails = True
        for storage.iter in range(3):
            storage.put_scalar("loss", 1.0)
            tracker.write()
        client.calls.clear()
        tracker.close()
    assert caplog.text.count("this run is no longer tracked; training goes on") == 1 and not client.calls


def test_a_server_that_is_not_there_is_told_before_the_first_iteration(client, tmp_path):
    def refused(name):
        raise ConnectionError("connection refused")

    client.get_experiment_by_name = refused
    with pytest.raises(LaunchError, match="TRACKING.MLFLOW .* 'mine': tracking cannot begin: connection refused"):
        trackers.MlflowTracker(experiment_in(tmp_path), "mine", 0, lambda: "finished")


def test_what_cannot_be_had_is_refused_at_the_start(monkeypatch):
    trackers.require_trackers({"mlflow": "", "wandb": ""})

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("mlflow", "wandb"):
        with pytest.raises(InstallError, match=rf"TRACKING.*pip install 'd2_balanced\[{name}\]'"):
            trackers.require_trackers({name: "mine"})


@pytest.mark.parametrize("ending, words", [
    ("yaml", ["TRACKING.WANDB", "mine"]), ("py", ["train.tracking.wandb=mine"])
])  # fmt: skip
def test_both_config_systems_have_the_keys(ending, words):
    plain = open_experiment(quick_config("faster_rcnn", ending))
    assert plain.settings.tracking == {"mlflow": "", "wandb": ""}
    assert open_experiment(quick_config("faster_rcnn", ending), words).settings.tracking["wandb"] == "mine"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return data_arguments(make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1))


def test_mlflows_local_store(data, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra with 30 packages: pip install 'd2_balanced[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words = ["--config-file", quick_config("faster_rcnn"), *data, "--output-dir", tmp_path / "run"]
    settings = [*TINY, "TRACKING.MLFLOW", "mine", "SOLVER.LOG_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1]
    assert train_net(*words, *settings, "SOLVER.MAX_ITER", 4, stop_after=2, monkeypatch=monkeypatch) == 143
    assert train_net("--resume", "--output-dir", tmp_path / "run") == 0
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["max_iter"] == "4"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "total_loss")] == [0, 1, 2, 3]
    assert "bbox/AP" in run.data.metrics
    assert {"config.yaml", "log.txt", "results.csv"} <= {file.path for file in client.list_artifacts(run.info.run_id)}


def test_wandb_offline(data, tmp_path):
    """In a process of its own: the library starts a service."""
    pytest.importorskip("wandb", reason="W&B is an extra with 30 packages: pip install 'd2_balanced[wandb]'")
    words = ["--config-file", quick_config("faster_rcnn", "py"), *data, "--output-dir", tmp_path / "run"]
    settings = [*LAZY_TINY, "train.tracking.wandb=mine", "train.max_iter=2"]
    done = subprocess.run(
        [sys.executable, "train_net.py", *map(str, [*words, *settings])], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"total_loss" in file.read_bytes() and json.loads((tmp_path / "run" / "tracking.json").read_text())["wandb"]
