"""Dynamic R-CNN through ``train_net.py``: resume in mid-window, what the logs and pictures of a run show."""

import csv
import os

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


def tensorboard_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload().Tags()["scalars"]
