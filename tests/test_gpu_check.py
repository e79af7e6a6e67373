"""tools/gpu_check.sh on the CPU, with everything tiny: the report has every part, and tells of what fails."""

import os
import subprocess
import sys

import pytest
from paths import ROOT
from tiny_runs import TINY, data_arguments, make_dataset

SETTINGS = {
    "PYTHON": sys.executable, "DEVICE": "cpu", "OMP_NUM_THREADS": "1", "CONFIG": "configs/quick/faster_rcnn_R_18_FPN.yaml",
    "SIZE": "64", "COUNTED_SIZE": "64", "IMAGES": "1", "COUNTED": "1", "ROUNDS": "1", "ITERATIONS": "1", "TESTS": "",
    "FORMATS": "bfloat16, channels last", "COMPILED": "", "COUNT_ONLY": "neutral",
    "METHODS": "configs/quick/faster_rcnn_R_18_FPN no/such/config",
}  # fmt: skip


@pytest.mark.slow
def test_a_dry_run_on_the_cpu(tmp_path):
    data = dict(zip(*[iter(data_arguments(make_dataset(tmp_path / "data")))] * 2))
    own = ["DATASETS.TRAIN_JSON", data["--train-json"], "DATASETS.TRAIN_IMAGES", data["--train-images"], "DATASETS.TEST", "()"]
    settings = {**SETTINGS, "TRAINING": " ".join([*own, *TINY])}
    command = ["bash", os.path.join(ROOT, "tools", "gpu_check.sh"), str(tmp_path / "report.md")]
    run = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    report = (tmp_path / "report.md").read_text()
    assert run.returncode == 1, report  # for the config that is not there
    parts = ["# Check on a GPU", "## Operators and syncs", "## Training step, 1 image(s)", "## Inference",
             "## Short training: faster_rcnn_R_18_FPN", "## Short training: config"]  # fmt: skip
    assert [part for part in parts if part not in report] == []
    assert "| torch " in report and "no GPU: a dry run on the CPU" in report
    assert "| bfloat16, channels last " in report and '"total_loss"' in report
    assert report.count("Failed with status") == 1 and "no/such/config" in report and "1 step(s) failed" in report
