"""The command as a user meets it: lists, dry runs, data that do not fit; and one real, small table."""

import functools
import os
import re
import shlex
import subprocess

import pytest
from commands import refusal, status
import yaml
from d2_balanced.train import argument_parser
from d2_balanced.engine.run import load_experiment
from d2_balanced.tables import execute, speed
from d2_balanced.tables.cli import main
from paths import ROOT
from tiny_runs import TINY, data_arguments, make_dataset

QUICK = {"config": "configs/coco/mask_rcnn_R_50_FPN_1x.yaml", "tiny": "configs/quick/mask_rcnn_R_18_FPN.yaml"}


def test_list_has_all_rows_and_says_what_cannot_run(capsys):
    assert main(["DynamicRCNN", "--scale", "coco", "--list"]) == 0
    text = capsys.readouterr().out
    assert "DynamicRCNN:table_3  Effect of each component" in text and "DLA + DSL" in text
    assert "cannot run: a detector that neither" in text and "dynamic_faster_rcnn_R_50_FPN_1x.yaml" in text


def test_dry_run_prints_commands_of_train_net(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["RGA_PRM:table_1", "--row", "PRM, 1:9 of the two", "--dry-run", "--seeds", "5", "--output", "somewhere"]
    assert main([*words, "--num-gpus", "2", "--overrides", "SOLVER.BASE_LR", "0.5"]) == 0
    text = capsys.readouterr().out
    training, evaluation = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python train_net")]
    args = argument_parser().parse_args(training)
    cfg = load_experiment(args).cfg
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, args.num_gpus, args.resume) == (5, 0.5, 2, True)
    args = argument_parser().parse_args(evaluation)
    cfg = load_experiment(args).cfg
    assert args.eval_only and cfg.MODEL.BALANCED.TEST_BRANCHES == [1] and cfg.SOLVER.BASE_LR == 0.5
    assert cfg.MODEL.WEIGHTS == os.path.join(argument_parser().parse_args(training).output_dir, "model_final.pth")
    assert "MODEL.BALANCED.TEST_BRANCHES: [1]" in text and not os.path.exists("somewhere")


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "paper").mkdir()
    path = tmp_path / "paper" / "tables.yaml"
    rows = [
        {"name": "boxes", **QUICK, "overrides": {"MODEL.MASK_ON": False}, "paper": {"AP": 35.0}},
        {"name": "masks", **QUICK, "paper": {"AP": 36.0}},
        {"name": "looser NMS", "eval_of": "boxes", "overrides": {"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.9}, "paper": {}},
    ]
    path.write_text(yaml.safe_dump({"table_1": {"title": "T", "metrics": ["AP", "params_K"], "rows": rows}}))
    data = make_dataset(tmp_path / "train"), make_dataset(tmp_path / "val", images=3, seed=1)
    return path, data_arguments(*data), ["--seeds", "1", "--output", str(tmp_path / "out")]


def without_masks(json_file):
    with open(json_file) as file:
        text = re.sub(r', "segmentation": \[\[[^]]*\]\]', "", file.read())
    with open(json_file, "w") as file:
        file.write(text)


def test_a_real_table(experiment, capfd, tmp_path, monkeypatch):
    """Trains, evaluates with other settings, reports; the saved config has the key of the row; masks are missed."""
    path, data, words = experiment
    without_masks(data[1])
    command = [str(path), *data, *words, "--overrides", *TINY, "SOLVER.MAX_ITER", "2"]
    assert main(command) == 0
    text = capfd.readouterr().out
    assert "masks: not run: its data: error: " in text and "without a mask" in text
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in text.splitlines()
            if line.startswith("| ")}  # fmt: skip
    assert rows["boxes"][2] == rows["looser NMS"][2] == "1" and rows["masks"][2] == "-"
    assert float(rows["boxes"][3]) >= 0 and int(rows["boxes"][4]) > 10 and rows["boxes"][-2] == "35.0"
    assert main([*command[:1], "--report", *command[1:]]) == 0
    assert "2 of them finished already" in capfd.readouterr().out
    for words in told_costs(tmp_path, monkeypatch):
        assert main([*command[:1], words, *command[1:]]) == 0
        text = capfd.readouterr().out
        assert "FPS | step_s | memory_GB | size_MB" in re.sub(" +", " ", text) and "Costs are this machine's" in text
    line = next(line for line in text.splitlines() if line.startswith("| boxes"))
    fps, step, memory, size = (float(cell) for cell in line.split("|")[6:10])
    assert fps > 0 and step > 0 and 0.1 < memory < 20
    assert size == pytest.approx(os.path.getsize(next(tmp_path.glob("out/runs/*boxes*/seed1/model_final.pth"))) / 2**20, abs=0.01)


def told_costs(tmp_path, monkeypatch):
    """Measure in this process, which is faster; then show what is there."""
    monkeypatch.setattr(speed, "measure_speed", functools.partial(speed.measure_speed, images=1, steps=1))

    def here(command, **_):
        assert command[1:3] == ["-m", "d2_balanced.tables.speed"]
        return subprocess.CompletedProcess(command, status(speed.main, *command[3:]), "", "")

    monkeypatch.setattr(execute.subprocess, "run", here)
    return "--speed", "--report"


def test_data_are_checked_first(experiment, tmp_path, capsys):
    path, data, words = experiment
    (tmp_path / "val" / "0.png").unlink()
    assert "0.png" in refusal(main, str(path), *data, *words)
    assert "missing.json" in refusal(main, str(path), *data[:4], "--val-json", "missing.json", "--val-images", ".", *words)
    assert "give --val-json" in refusal(main, str(path), *data[:4], *words)
    assert not (tmp_path / "out").exists()


def test_nothing_that_can_run_is_an_error(tmp_path, capsys):
    rows = [{"name": "theirs", "paper": {}, "cannot_run": "a model that is not here"}]
    tables = {"table_1": {"title": "A table", "metrics": ["AP"], "rows": rows}}
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump(tables))
    assert "a model that is not here" in refusal(main, str(tmp_path / "tables.yaml"), "--output", str(tmp_path / "out"))


def test_the_documented_overrides_leave_boxes_only(capsys):
    """Every row of the paper that is about masks can be built with them."""
    with open(os.path.join(ROOT, "docs", "TABLES.md")) as file:
        (words,) = re.findall(r"`--overrides (MODEL.MASK_ON False[^`]*)`", file.read())
    assert main(["R3CNN", "--list", "--overrides", *shlex.split(words)]) == 0
    listed = capsys.readouterr().out
    assert "R3-CNN-L+DCN" in listed and "cannot run: " not in listed
