"""Dynamic R-CNN through ``train_net.py``: resume in mid-window, what the logs and pictures of a run show."""

import csv
import json
import os
import subprocess
import sys

import pytest
from paths import ROOT
from tiny_runs import TINY, checkpoint, data_arguments, differences, make_dataset, told, train_net

QUICK = os.path.join(ROOT, "projects", "DynamicRCNN", "configs", "dynamic_quick.yaml")
MATCHER, LOSS = "roi_heads.proposal_matcher.", "roi_heads.box_predictor.box_loss."
VALUES = {
    "dynamic_matcher/threshold", "dynamic_matcher/iou_statistic", "dynamic_matcher/num_positives",
    "dynamic_smooth_l1/beta", "dynamic_smooth_l1/error_statistic",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_arguments(make_dataset(tmp_path_factory.mktemp("data") / "train"))


def settings(period, iterations):
    """Few proposals on small images: high ranks, and a beta that starts above the errors, make both values move."""
    windows = ["MODEL.BALANCED.MATCHER.PERIOD", period, "MODEL.BALANCED.BOX_LOSS.PERIOD", period]
    ranks = ["MODEL.BALANCED.MATCHER.K_IOU", 3, "MODEL.BALANCED.BOX_LOSS.K_ERROR", 2]
    start = ["MODEL.BALANCED.BOX_LOSS.INITIAL_BETA", 5.0, "SEED", 5]
    return [*TINY, *windows, *ranks, *start, "SOLVER.MAX_ITER", iterations, "SOLVER.LOG_PERIOD", 2]


@pytest.mark.parametrize("stop", [3, 6, 7])
def test_stop_and_resume_in_mid_window_change_no_bit(data, tmp_path, monkeypatch, stop):
    """2 N iterations straight, against N, stop, resume and N again: weights, values and windows of C = 4."""
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    words = ["--config-file", QUICK, *data, "--output-dir"]
    overrides = settings(4, 2 * stop)
    assert train_net(*words, straight, *overrides) == 0
    assert train_net(*words, parts, *overrides, stop_after=stop, monkeypatch=monkeypatch) == 143
    middle = checkpoint(parts, f"model_{stop - 1:07d}.pth")["model"]
    assert middle[MATCHER + "window.count"] == middle[LOSS + "window.count"] == stop % 4
    assert train_net(*words, parts, "--resume", *overrides) == 0
    assert differences(checkpoint(straight), checkpoint(parts)) == []
    assert told(parts) == told(straight)
    final = checkpoint(straight)["model"]
    assert 0.4 < final[MATCHER + "threshold"] < 1 and 0 < final[LOSS + "beta"] < 5  # they did move


def test_a_run_logs_what_adapts_and_draws_it(data, tmp_path):
    assert train_net("--config-file", QUICK, *data, "--output-dir", tmp_path, *settings(2, 6)) == 0
    lines = told(tmp_path)
    assert [line["iteration"] for line in lines] == [1, 3, 5] and all(VALUES <= set(line) for line in lines)
    names = ("dynamic_matcher/threshold", "dynamic_smooth_l1/beta")
    thresholds, betas = ([line[name] for line in lines] for name in names)
    assert len(set(thresholds)) == len(set(betas)) == 3 and min(thresholds) >= 0.4 and max(betas) < 5
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dynamic_matcher/threshold"]) for row in rows] == thresholds
    assert {path.name for path in tmp_path.glob("*.png")} == {"results.png", "adaptive.png"}
    assert VALUES <= set(tensorboard_scalars(tmp_path))


def test_two_processes_train_with_the_values_of_the_union_of_their_records(data, tmp_path):
    """C = 3: after every step both hold the same, which is the mean and the median of what both recorded."""
    words = ["--config-file", QUICK, *data, "--output-dir", tmp_path, *settings(3, 6)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *torchrun, os.path.join(os.path.dirname(__file__), "dynamic_program.py")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
    result = subprocess.run([*command, *map(str, words)], env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    held = [values for _, values in one]
    assert held == [values for _, values in other] and len(held) == 6
    assert held[0] == held[1] == [pytest.approx(0.4), 5.0]
    for first in (0, 3):
        recorded = [statistics for steps in (one, other) for statistics, _ in steps[first : first + 3]]
        ious, errors = zip(*recorded)
        assert len(set(ious)) > 3  # the processes saw different images
        assert held[first + 2] == pytest.approx([max(sum(ious) / 6, 0.4), min(sorted(errors)[3], 5.0)], rel=1e-6)
    assert held[2] == held[3] == held[4] and held[5] != held[2]


def tensorboard_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload().Tags()["scalars"]
