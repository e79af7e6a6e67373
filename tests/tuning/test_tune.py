"""``d2_balanced tune``: what it runs, what it says, what it refuses; with a stand-in for training, and once without."""

import csv
import json
import os
import re
import shlex
import shutil
import sys

import pytest
from commands import refusal, status
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config

pytest.importorskip("optuna", reason="Optuna is an extra: pip install 'd2_balanced[tune]'")

from d2_balanced.tables.execute import Interrupted  # noqa: E402
from d2_balanced.train import argument_parser  # noqa: E402
from d2_balanced.tuning import trial, tune  # noqa: E402
from d2_balanced.tuning.command import main  # noqa: E402

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_train.py")
YAML = quick_config("faster_rcnn")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command with the stand-in, in a folder of its own; returns its status."""
    monkeypatch.setattr(trial, "train_program", lambda: [sys.executable, "-S", FAKE])
    base = ["--config-file", YAML, "--output-dir", tmp_path / "out"]
    return lambda *words, base=base: status(main, *base, *words)


def best(tmp_path):
    return json.loads((tmp_path / "out" / "best.json").read_text())["arms"]


def table(tmp_path):
    with open(tmp_path / "out" / "tuning.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_arm_gets_the_same_trials_and_the_best_comes_as_a_command(run, tmp_path, capsys):
    rga = "rga=--add RGA_PRM/rga SOLVER.WEIGHT_DECAY 0.001"
    assert run("--lr", "0.02,0.05,1,2", "--arm", "plain", "--arm", rga) == 0
    said = capsys.readouterr().out
    rows = table(tmp_path)
    assert [row["arm"] for row in rows] == ["plain"] * 4 + ["rga"] * 4
    rates = [[row["SOLVER.BASE_LR"] for row in rows if row["arm"] == arm] for arm in ("plain", "rga")]
    assert rates[0] == rates[1] and sorted(rates[0]) == ["0.02", "0.05", "1", "2"]
    notes = {row["SOLVER.BASE_LR"]: (row["score"], row["note"]) for row in rows}
    assert notes["1"] == ("0.0", "diverged in iteration 7")
    assert notes["2"] == ("0.0", "diverged: weights are not finite")
    found = best(tmp_path)["rga"]
    assert (found["values"], found["score"]) == ({"SOLVER.BASE_LR": "0.05"}, 5.0)
    assert (found["trials"], found["diverged"]) == (4, 2)
    assert found["command"] in said and found["command"].startswith("for seed in 1 2 3 4; do d2_balanced train ")
    words = shlex.split(found["command"].split("d2_balanced train ")[1].replace("; done", ""))
    args = argument_parser().parse_args(words)
    assert args.add == ["RGA_PRM/rga"] and args.output_dir == str(tmp_path / "out" / "compared" / "rga" / "$seed")
    assert args.opts == ["SOLVER.WEIGHT_DECAY", "0.001", "SOLVER.BASE_LR", "0.05", "SEED", "$seed"]
    started = (tmp_path / "out" / "trials" / "plain" / "001" / "trial.txt").read_text()
    assert started.splitlines()[1].endswith("SEED 100")


def test_data_are_given_as_for_train(run, tmp_path, capsys):
    """A folder, a share of it for validation; and no empty path, which would train on the config's own data."""
    folder = str(tmp_path / "data")
    train_json, images = make_dataset(tmp_path / "made")
    os.makedirs(f"{folder}/annotations")
    shutil.move(train_json, f"{folder}/annotations/train.json")
    shutil.copytree(images, f"{folder}/train")
    words = ["--data", folder, "--val-fraction", "0.5", "--lr", "0.02,0.05", "--trials", "1"]
    assert run(*words) == 0
    started = (tmp_path / "out" / "trials" / "tuned" / "001" / "trial.txt").read_text()
    assert f"--train-images {folder}/train" in started and "--val-json" in started
    assert run(base=["--output-dir", tmp_path / "out"]) == 0 and run(*words, "--val-seed", "1") == 2
    assert "val_seed changed" in capsys.readouterr().err
    assert run("--train-json", "", "--lr", "0.02,0.05") == 2
    assert "--train-json is empty" in capsys.readouterr().err


def test_again_it_only_reports_and_more_trials_are_added(run, tmp_path, capsys):
    assert run("--lr", "0.02,0.05,0.03", "--trials", "2") == 0
    first = table(tmp_path)
    assert run("--lr", "0.02,0.05,0.03", "--trials", "2") == 0 and table(tmp_path) == first
    assert run("--trials", "3", "--final-only", base=["--output-dir", tmp_path / "out"]) == 0
    assert len(table(tmp_path)) == 3 and table(tmp_path)[:2] == first
    starts = sorted((tmp_path / "out" / "trials").rglob("starts"))
    assert [path.read_text() for path in starts] == ["\n"] * 3
    assert not (starts[2].parent / "model_best.pth").exists() and (starts[2].parent / "model_final.pth").exists()
    assert run("--lr", "0.02,0.05,0.04", "--trials", "3") == 2
    assert "has a tuning that was begun otherwise: lr changed" in capsys.readouterr().err
    assert run("--lr", "0.02..0.05", base=["--output-dir", tmp_path / "out"]) == 2
    assert "lr: a tuning goes on as it was begun" in capsys.readouterr().err


def test_an_interrupted_tuning_says_how_it_goes_on(run, tmp_path, capsys, monkeypatch):
    execute, calls = tune.execute, []

    def interrupted_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Interrupted
        return execute(*args)

    monkeypatch.setattr(tune, "execute", interrupted_at_the_second)
    assert run("--lr", "0.02,0.05") == 130
    assert f"It goes on with: d2_balanced tune --output-dir {tmp_path / 'out'}" in capsys.readouterr().out
    assert [row["note"] for row in table(tmp_path)] == ["", "not finished"]
    begun = table(tmp_path)[1]["SOLVER.BASE_LR"]
    assert run(base=["--output-dir", tmp_path / "out"]) == 0
    assert table(tmp_path)[1]["SOLVER.BASE_LR"] == begun and table(tmp_path)[1]["note"] == ""


def test_stopped_before_the_first_trial_has_ended_it_says_so(run, tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise Interrupted

    monkeypatch.setattr(tune, "execute", interrupted)
    assert run("--lr", "0.02,0.05") == 130
    assert "tuned: no trial has ended yet." in capsys.readouterr().out


def test_a_fault_is_told_and_tried_again(run, tmp_path, capsys):
    assert run("--lr", "0.02,4") == 1
    assert "Failed, and tried again by the same command: tuned, trial " in capsys.readouterr().out
    assert best(tmp_path)["tuned"]["trials"] == 1
    assert run("--lr", "0.02,4") == 0
    assert best(tmp_path)["tuned"]["score"] == 10.0


def test_what_training_refuses_ends_the_tuning(run, capsys):
    assert run("--lr", "3,3.0") == 2
    assert "SOLVER.BASE_LR 3.0 is refused" in capsys.readouterr().err


def test_where_all_trials_diverge_there_is_no_best(run, tmp_path, capsys):
    assert run("--lr", "1,2") == 0
    assert "none of 2 trials ended well; search lower learning rates" in capsys.readouterr().out
    assert best(tmp_path)["tuned"]["command"] == ""


MISUSE = {
    "no key": (["--search", "SOLVER.NOTHING=1,2"], "SOLVER.NOTHING"),
    "refused value": (["--search", "MODEL.BALANCED.SAMPLER.NAME=RandomSampler,NoSampler"], "NoSampler"),
    "refused by the constructor": (
        ["--lr", "none", "--search", "MODEL.BALANCED.SAMPLER.NUM_BINS=0,3", "MODEL.BALANCED.SAMPLER.NAME",
         "IoUBalancedSampler"], "with MODEL.BALANCED.SAMPLER.NUM_BINS 0: "),
    "budget": (["--search", "SOLVER.MAX_ITER=1,2"], "SOLVER.MAX_ITER: is the same in all trials"),
    "data": (["--search", "DATASETS.TEST=a,b"], "is the same in all trials"),
    "arms of different length": (["--arm", "a", "--arm", "b=SOLVER.MAX_ITER 5"], "different iterations"),
    "arms of different batches": (["--arm", "a", "--arm", "b=SOLVER.IMS_PER_BATCH 2"], "different images an iteration"),
    "arms of different data": (["--arm", "a", "--arm", "b=DATASETS.TRAIN \"('x',)\""], "different data"),
    "arm twice": (["--arm", "a", "--arm", "a"], "given twice"),
    "name of an arm": (["--arm", "../a"], "letters, digits"),
    "option of an arm": (["--arm", "a=--num-gpus 2"], "--num-gpus|overrides"),
    "set and searched": (["--lr", "0.1,0.2", "SOLVER.BASE_LR", "0.1"], "sets SOLVER.BASE_LR"),
    "seed": (["SEED", "1"], "sets SEED"),
    "rate as a key": (["--search", "SOLVER.BASE_LR=0.1,0.2"], "the learning rate is --lr"),
    "another arm's key": (["--arm", "a", "--search", "b:SOLVER.WEIGHT_DECAY=0.1,0.2"], "there is no arm 'b'"),
    "nothing": (["--lr", "none"], "Nothing is searched"),
    "too many trials": (["--lr", "0.1,0.2", "--trials", "3"], "2 combinations"),
    "no trials": (["--trials", "0"], "1 or more"),
    "early stop": (["TEST.PATIENCE", "3"], "TEST.PATIENCE ends some trials"),
    "no evaluation": (["DATASETS.TEST", "()"], "nothing to evaluate on"),
}


@pytest.mark.parametrize("words, told", MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_before_anything_runs(words, told, tmp_path):
    assert re.search(told, refusal(main, "--config-file", YAML, "--output-dir", tmp_path / "out", *words))
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_without_a_config_there_has_to_be_a_tuning(tmp_path):
    assert "is not there" in refusal(main, "--output-dir", tmp_path)


def test_a_metric_that_the_evaluation_lacks_is_named_with_those_it_has(run, capsys):
    assert run("--lr", "0.02,0.05", "--metric", "bbox/APx") == 2
    assert "bbox/APx is missing; there are bbox/AP." in capsys.readouterr().err


def test_real_trainings_of_both_config_systems(tmp_path):
    data = data_arguments(make_dataset(tmp_path / "train"), make_dataset(tmp_path / "val", images=3, seed=1))
    yaml = ["--config-file", YAML, *TINY, "SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1"]
    lazy = ["--config-file", quick_config("faster_rcnn", "py"), "train.max_iter=2", *LAZY_TINY[:-1]]
    arms = [f"yaml={shlex.join(yaml)}", f"lazy={shlex.join(lazy)}"]
    words = ["--output-dir", tmp_path / "out", *data, "--trials", "1", "--lr", "0.01..0.04", "--metric", "bbox/AP50"]
    assert status(main, *words, *(word for arm in arms for word in ("--arm", arm))) == 0
    found = best(tmp_path)
    assert found["yaml"]["trials"] == found["lazy"]["trials"] == 1
    assert found["lazy"]["values"] == {"optimizer.lr": "0.03"} and "train.seed=$seed" in found["lazy"]["command"]
    trials = tmp_path / "out" / "trials"
    saved = (trials / "yaml" / "001" / "config.yaml").read_text()
    assert "BASE_LR: 0.03" in saved and "SEED: 100" in saved
    assert [json.loads((trials / arm / "001" / "best.json").read_text())["metric"] for arm in found] == ["bbox/AP50"] * 2
