"""A run that was stopped or killed in a periodic evaluation: resuming makes up for it, to the bit of an unbroken run."""

import json
import os
import shutil

import pytest
from d2_balanced.engine import build
from tiny_runs import TINY, checkpoint, data_arguments, differences, make_dataset, quick_config, told, train_net

SETTINGS = [*TINY, "SEED", 5, "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = data_arguments(make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1))
    return ["--config-file", quick_config("faster_rcnn"), *data, *SETTINGS]


@pytest.fixture(scope="module")
def unbroken(words, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("unbroken") / "run")
    assert train_net("--output-dir", folder, *words) == 0
    return folder


def evaluations(folder):
    with open(os.path.join(folder, "best.json")) as file:
        return json.load(file)["evaluations"]


def require_equal(unbroken, folder):
    assert told(folder) == told(unbroken) and sum("bbox/AP" in line for line in told(folder)) == 3
    assert differences(checkpoint(unbroken), checkpoint(folder)) == []
    assert evaluations(folder) == evaluations(unbroken)


def fail_in_evaluation(monkeypatch, number):
    """The evaluation of this number, counted from 1, does not end: as if the process had been killed in it."""
    evaluate, seen = build.evaluate_model, []

    def killed(*args, **kwargs):
        seen.append(args)
        if len(seen) == number:
            raise OSError("killed")
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(build, "evaluate_model", killed)


def test_after_a_kill(words, unbroken, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        fail_in_evaluation(patch, 2)
        assert train_net("--output-dir", tmp_path, *words) == 1
    assert checkpoint(tmp_path, (tmp_path / "last_checkpoint").read_text())["iteration"] == 3
    assert train_net("--output-dir", tmp_path, "--resume") == 0
    said = capsys.readouterr()
    assert "The evaluation after 4 iterations is missing: it is made up for." in said.out + said.err
    require_equal(unbroken, str(tmp_path))


def test_after_a_signal_and_one_in_the_evaluation_that_makes_up(words, unbroken, tmp_path, monkeypatch):
    first = train_net("--output-dir", tmp_path, *words, stop_after=2, monkeypatch=monkeypatch)
    assert (first, [line["iteration"] for line in told(tmp_path)]) == (143, [1])
    with monkeypatch.context() as patch:
        fail_in_evaluation(patch, 1)
        assert train_net("--output-dir", tmp_path, "--resume") == 1
    assert train_net("--output-dir", tmp_path, "--resume") == 0
    require_equal(unbroken, str(tmp_path))


def test_an_evaluation_that_is_there_is_not_repeated(words, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_in_evaluation(patch, 3)
        assert train_net("--output-dir", tmp_path, *words) == 1
    os.remove(tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    best = os.path.getmtime(tmp_path / "model_best.pth")
    with monkeypatch.context() as patch:
        fail_in_evaluation(patch, 2)  # the first is that of the last iteration
        assert train_net("--output-dir", tmp_path, "--resume") == 0
    require_equal(unbroken, str(tmp_path))
    assert os.path.getmtime(tmp_path / "model_best.pth") == best or len(evaluations(unbroken)) == 3


def test_a_run_that_was_killed_when_it_had_ended_early_ends(words, tmp_path, capsys):
    early = ["SOLVER.BASE_LR", 1e-9, "TEST.PATIENCE", 1, "SOLVER.MAX_ITER", 20]
    folder, killed = str(tmp_path / "early"), str(tmp_path / "killed")
    assert train_net("--output-dir", folder, *words, *early) == 0
    done = checkpoint(folder)["iteration"] + 1
    shutil.copytree(folder, killed)
    os.remove(os.path.join(killed, "model_final.pth"))
    with open(os.path.join(killed, "last_checkpoint"), "w") as file:
        file.write(f"model_{done - 1:07d}.pth")
    assert train_net("--output-dir", killed, "--resume") == 0
    assert differences(checkpoint(folder), checkpoint(killed)) == [] and told(folder) == told(killed)
    capsys.readouterr()
    assert train_net("--output-dir", killed, "--resume") == 2
    assert "TEST.PATIENCE" in capsys.readouterr().err


def test_a_run_that_is_cut_short_gets_its_final_checkpoint(unbroken, tmp_path):
    folder = str(tmp_path / "shorter")
    shutil.copytree(unbroken, folder)
    os.remove(os.path.join(folder, "model_final.pth"))
    with open(os.path.join(folder, "metrics.json"), "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in told(unbroken) if line["iteration"] < 3)
    with open(os.path.join(folder, "last_checkpoint"), "w") as file:
        file.write("model_0000003.pth")
    assert train_net("--output-dir", folder, "--resume", "SOLVER.MAX_ITER", 4) == 0
    assert checkpoint(folder)["iteration"] == 3
    assert evaluations(folder) == evaluations(unbroken)[:2]


def test_the_recording_is_that_of_an_unbroken_run(words, tmp_path, monkeypatch):
    """Killed where a window ends, and in the last evaluation, twice: its last window is in the checkpoint only."""
    recorded = ["ANALYSIS.RECORD", True, "ANALYSIS.PERIOD", 4, "ANALYSIS.GRADIENT_PERIOD", 3]
    assert train_net("--output-dir", tmp_path / "unbroken", *words, *recorded) == 0
    killed = tmp_path / "killed"
    for number, begin in ((2, [*words, *recorded]), (2, ["--resume"]), (1, ["--resume"])):
        with monkeypatch.context() as patch:
            fail_in_evaluation(patch, number)
            assert train_net("--output-dir", killed, *begin) == 1
    assert train_net("--output-dir", killed, "--resume") == 0
    expected, found = ((folder / "imbalance.jsonl").read_text() for folder in (tmp_path / "unbroken", killed))
    assert [json.loads(line).get("first") for line in expected.splitlines()].count(4) == 1 and found == expected
