"""A run that is stopped and resumed ends with the same bits as one that is not: weights, optimizer, logs."""

import shutil

import pytest
from tiny_runs import (
    LAZY_TINY,
    TINY,
    checkpoint,
    data_arguments,
    differences,
    make_dataset,
    quick_config,
    told,
    train_net,
)

TOTAL = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return data_arguments(make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1))


def compare(data, folder, monkeypatch, model, settings, stop, at_resume=()):
    """Train straight, and with a stop after ``stop`` iterations; returns where the two final checkpoints differ."""
    config = ["--config-file", quick_config(model), *data]
    overrides = [*TINY, "SOLVER.MAX_ITER", TOTAL, "SEED", 5, *settings]
    straight, parts = str(folder / "straight"), str(folder / "parts")
    assert train_net(*config, "--output-dir", straight, *overrides) == 0
    status = train_net(*config, "--output-dir", parts, *overrides, stop_after=stop, monkeypatch=monkeypatch)
    assert status == 128 + 15
    assert train_net(*config, "--output-dir", parts, "--resume", *overrides, *at_resume) == 0
    assert told(parts) == told(straight)
    return differences(checkpoint(straight), checkpoint(parts))


CASES = {
    "evaluation in between, workers changed": (
        "faster_rcnn", ["TEST.EVAL_PERIOD", 2, "DATALOADER.NUM_WORKERS", 0], 5, ["DATALOADER.NUM_WORKERS", 2],
    ),
    "repeat factors, grouping, last iteration": (
        "faster_rcnn",
        ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 0.9], 9, [],
    ),
    "bfloat16 and accumulation": ("faster_rcnn", ["SOLVER.AMP.ENABLED", True, "SOLVER.ACCUMULATE", 2], 3, []),
    "layers in bfloat16, channels last and folded": (
        "cascade_rcnn",
        ["MODEL.LAYERS.PRECISION", "bfloat16", "MODEL.LAYERS.CHANNELS_LAST", True, "MODEL.LAYERS.FOLD_FROZEN_NORM", True,
         "MODEL.RESNETS.NORM", "FrozenBN", "TEST.EVAL_PERIOD", 4], 5, [],
    ),
    "masks, stages and accumulated gradients of classes": (
        "cascade_mask_rcnn", ["MODEL.BALANCED.CLS_LOSS.NAME", "EQLv2"], 7, [],
    ),
    "a window of statistics that is half full, counts of classes and of gradient norms": (
        "faster_rcnn",
        ["MODEL.BALANCED.CLS_LOSS.NAME", "SeesawLoss", "MODEL.PROPOSAL_GENERATOR.NAME", "BalancedRPN",
         "MODEL.BALANCED.RPN.CLS_LOSS.NAME", "GHMC", "MODEL.BALANCED.RPN.BOX_LOSS.NAME", "GHMR"] +
        ["MODEL.BALANCED.MATCHER.NAME", "DynamicMatcher", "MODEL.BALANCED.MATCHER.PERIOD", 4,
         "MODEL.BALANCED.BOX_LOSS.NAME", "DynamicSmoothL1", "MODEL.BALANCED.BOX_LOSS.PERIOD", 4], 6, [],
    ),
    "a loss normaliser in a plain attribute": ("retinanet", ["TEST.EVAL_PERIOD", 3], 5, []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_stop_and_resume_change_no_bit(data, tmp_path, monkeypatch, case):
    model, settings, stop, at_resume = CASES[case]
    assert compare(data, tmp_path, monkeypatch, model, settings, stop, at_resume) == []


def test_a_lazy_run_resumes_exactly(data, tmp_path, monkeypatch):
    settings = [*LAZY_TINY, "train.max_iter=6"]
    config = ["--config-file", quick_config("faster_rcnn", "py"), *data[:4]]  # without evaluation
    for name, extra, stop in (("straight", [], None), ("parts", [], 3), ("parts", ["--resume"], None)):
        words = [*config, "--output-dir", tmp_path / name, *extra, *settings]
        assert train_net(*words, stop_after=stop, monkeypatch=monkeypatch) == (143 if stop else 0)
    assert differences(checkpoint(tmp_path / "straight"), checkpoint(tmp_path / "parts")) == []
    assert told(tmp_path / "parts") == told(tmp_path / "straight")


def test_a_random_seed_is_kept_by_the_resume_and_thread_counts_are_watched(data, tmp_path, monkeypatch, capsys):
    config = ["--config-file", quick_config("faster_rcnn"), *data, "--output-dir", tmp_path / "run"]
    overrides = [*TINY, "SOLVER.MAX_ITER", 6, "SEED", -1]
    assert train_net(*config, *overrides, stop_after=3, monkeypatch=monkeypatch) == 143
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert train_net(*config, "--resume", *overrides) == 0
    seed = next(line for line in (tmp_path / "run" / "config.yaml").read_text().splitlines() if line.startswith("SEED"))
    again = ["--config-file", quick_config("faster_rcnn"), *data, "--output-dir", tmp_path / "copy", "--resume"]
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    assert train_net(*again, *overrides) == 0
    assert seed in (tmp_path / "copy" / "config.yaml").read_text() and seed != "SEED: -1"
    assert differences(checkpoint(tmp_path / "run")["model"], checkpoint(tmp_path / "copy")["model"]) == []
    assert "threads 1 -> 3" in capsys.readouterr().out
