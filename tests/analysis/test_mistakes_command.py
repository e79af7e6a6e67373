"""``d2_balanced errors`` on the folders of runs, and the setting that switches the page on."""

import json
import shutil

import pytest
from commands import refusal
from tiny_runs import make_dataset, quick_config

from d2_balanced.analysis.mistakes import main
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders as evaluated runs of one data set leave them, of a yaml and of a lazy config."""
    folder = tmp_path_factory.mktemp("runs")
    data = make_dataset(folder / "val")
    with open(data[0], encoding="utf-8") as file:
        annotations = json.load(file)["annotations"]
    for name, ending, shift in (("first", "yaml", 0), ("second", "py", 20)):
        experiment = open_experiment(quick_config("faster_rcnn", ending), (), OwnData("gone.json", "gone", *data))
        results = folder / name / "inference" / "own_val"
        results.mkdir(parents=True)
        experiment.save_config(str(folder / name / "config.yaml"))
        detections = [
            {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9,
             "bbox": [a["bbox"][0] + (shift if a["image_id"] else 0), *a["bbox"][1:]]}
            for a in annotations
        ]  # fmt: skip
        (results / "coco_instances_results.json").write_text(json.dumps(detections))
        (results / "metrics.json").write_text(json.dumps({"metrics": {"bbox": {}}, "max_dets": 100}))
    return folder


def test_the_page_of_a_run_needs_no_model_and_no_training_data(runs, capsys):
    (path,) = main([str(runs / "first")])
    assert path == str(runs / "first" / "inference" / "own_val" / "errors" / "errors.html")
    assert capsys.readouterr().out == path + "\n"
    about = json.loads((runs / "first" / "inference" / "own_val" / "errors" / "errors.json").read_text())
    assert about["totals"]["missed"] == about["totals"]["false"] == 0 < about["totals"]["found"]


def test_two_runs_are_compared(runs, tmp_path):
    (path,) = main([str(runs / "first"), str(runs / "second"), "--output", str(tmp_path), "--pictures", "1"])
    page = (tmp_path / "compared.html").read_text()
    assert path == str(tmp_path / "compared.html") and "first on own_val" in page and page.count("<img") == 1
    (path,) = main([str(runs / "second"), str(runs / "first"), "--pictures", "0"])
    assert "compared_with_second" in path


def test_data_that_have_moved_are_named(runs, tmp_path):
    moved = shutil.copytree(runs, tmp_path / "moved")
    words = ["--val-json", str(moved / "val" / "annotations.json"), "--val-images", str(moved / "val")]
    (path,) = main([str(moved / "first"), *words, "--pictures", "0", "--score", "0.95"])
    about = json.loads((moved / "first" / "inference" / "own_val" / "errors" / "errors.json").read_text())
    assert about["score"] == 0.95 and about["totals"]["found"] == 0


@pytest.mark.parametrize("words, told", [
    (["{}/nothing"], "does not exist"),
    (["{}"], "Name one of the 2 evaluated runs below it, such as {}/first"),
    (["{}/first/config.yaml"], "is a file"),
    (["{}/first", "--dataset", "x"], "was evaluated on own_val"),
    (["{}/first", "{}/first", "{}/first"], "one run, or two"),
    (["{}/first", "--pictures", "-1"], "0 or more"),
    (["{}/first", "--score", "2"], "from 0 to 1"),
    (["{}/first", "--output", "{}/first/config.yaml"], "Choose another one with --output"),
    (["{}/first", "{}/second", "--output", "{}/first/config.yaml"], "Choose another one with --output"),
])  # fmt: skip
def test_misuse(runs, words, told, capsys):
    said = refusal(main, *(word.format(runs) for word in words))
    assert told.format(runs) in said + capsys.readouterr().err


@pytest.fixture
def evaluated(runs, tmp_path):
    """A folder as ``eval --output-dir`` leaves it: no config, an evaluation that says what its data are."""
    folder = tmp_path / "else"
    shutil.copytree(runs / "second" / "inference", folder / "inference")
    data = {"dataset": "mine", "json_file": str(runs / "val" / "annotations.json"), "image_root": str(runs / "val")}
    report = {**data, "metrics": {"bbox": {}}, "max_dets": 100}
    (folder / "inference" / "own_val" / "metrics.json").write_text(json.dumps(report))
    return folder


@pytest.mark.parametrize("below", ["", "inference", "inference/own_val", "inference/own_val/coco_instances_results.json"])
def test_the_folder_of_an_evaluation_alone_will_do(runs, evaluated, below):
    (path,) = main([str(evaluated / below), "--pictures", "1"])
    page = (evaluated / "inference" / "own_val" / "errors" / "errors.html").read_text()
    assert path == str(evaluated / "inference" / "own_val" / "errors" / "errors.html")
    assert "else on mine" in page and page.count("<img") == 1
    (path,) = main([str(runs / "first"), str(evaluated / below), "--pictures", "0"])
    assert path == str(evaluated / "inference" / "own_val" / "compared_with_first" / "compared.html")


def test_the_augmented_evaluation_of_a_run_is_compared_with_the_plain_one(runs, tmp_path):
    run = shutil.copytree(runs / "first", tmp_path / "run")
    shutil.copytree(run / "inference", run / "inference_TTA")
    (path,) = main([str(run), str(run / "inference_TTA"), "--pictures", "0"])
    assert path == str(run / "inference_TTA" / "own_val" / "compared_with_run" / "compared.html")
    assert "run_inference_TTA on own_val" in (run / "inference_TTA" / "own_val" / "compared_with_run" / "compared.html").read_text()


def test_what_an_evaluation_was_made_on_is_asked_for_where_it_is_not_known(evaluated):
    folder = evaluated / "inference" / "own_val"
    report = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**report, "json_file": str(evaluated / "gone.json")}))
    said = refusal(main, evaluated)
    assert "gone.json, are not there now; name them: --val-json" in said
    (folder / "metrics.json").write_text(json.dumps({"metrics": {}, "dataset": "of_my_code"}))
    assert "does not say which annotations 'of_my_code' has" in refusal(main, evaluated)
    (folder / "metrics.json").unlink()
    words = [str(evaluated), "--val-json", report["json_file"], "--val-images", report["image_root"]]
    assert main([*words, "--pictures", "0"])


def test_an_evaluation_says_what_its_data_are(runs, tmp_path):
    data = OwnData(val_json=str(runs / "val" / "annotations.json"), val_images=str(runs / "val"))
    experiment = open_experiment(quick_config("faster_rcnn"), ["OUTPUT_DIR", str(tmp_path)], data)
    experiment.use_own_data()
    evaluator = experiment.build_test("own_val")[1]
    evaluator.evaluate()
    report = json.loads((tmp_path / "inference" / "own_val" / "metrics.json").read_text())
    assert (report["json_file"], report["image_root"]) == (data.val_json, data.val_images)
    assert main([str(tmp_path), "--pictures", "0"])


def test_a_run_that_was_not_evaluated_is_told_how(runs, tmp_path):
    shutil.copytree(runs / "first", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "inference")
    assert f"d2_balanced eval --resume --output-dir {tmp_path / 'run'}" in refusal(main, tmp_path / "run")


@pytest.mark.parametrize("ending, off", [("yaml", ["TEST.ERRORS", "False"]), ("py", ["dataloader.evaluator.errors=False"])])
def test_both_config_systems_switch_it(runs, ending, off):
    data = OwnData(val_json=str(runs / "val" / "annotations.json"), val_images=str(runs / "val"))
    for words, expected in (([], True), (off, False)):
        experiment = open_experiment(quick_config("faster_rcnn", ending), words, data)
        experiment.use_own_data()
        assert experiment.build_test("own_val")[1].errors is expected
