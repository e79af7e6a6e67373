"""Reports and inspections of runs and data that are damaged, gone or of another kind: a page, or an error in words.

The figures are left out: they are the slow part, and tested elsewhere.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import refusal
from d2_balanced.analysis import training_samples
from d2_balanced.recording.file import FILE, find_recording, read_recording
from d2_balanced.analysis.report import report_of_training, write
from d2_balanced.analysis.report.__main__ import main
from d2_balanced.analysis.report.gather import gather
from d2_balanced.analysis.report.saved_run import open_to_report
from d2_balanced.engine.open import open_experiment
from d2_balanced.utils.errors import OutputError
from tiny_runs import TINY, data_arguments, make_dataset, quick_config, train_net

CONFIG = ["--config-file", quick_config("faster_rcnn")]
SETTINGS = [*TINY, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NAME", "BalancedROIHeads", "SEED", "1"]
NO_PICTURES = ["--pictures", "0"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(write, "save_figures", lambda data, folder: {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recorded run of two iterations, two windows, with an evaluation; and its training data."""
    folder = tmp_path_factory.mktemp("trained")
    train, val = make_dataset(folder / "train"), make_dataset(folder / "val", images=2, seed=1)
    words = [*CONFIG, *data_arguments(train, val), "--output-dir", folder / "run", *SETTINGS]
    assert train_net(*words, "SOLVER.MAX_ITER", 2, "ANALYSIS.RECORD", True, "ANALYSIS.PERIOD", 1) == 0
    return folder / "run", train


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def page(folder, *words):
    """The text of the report's page."""
    return Path(main([str(folder), *words])).read_text()


def on_a_copy_of_its_data(run, train, tmp_path):
    """Let the run's config name a copy of its training data; returns the paths of the images."""
    images = shutil.copytree(train[1], tmp_path / "moved")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(train[1], str(images)))
    return sorted(Path(images).glob("*.png"))


def test_inspecting_into_the_folder_of_a_run_keeps_its_recording(run, trained, tmp_path, monkeypatch):
    before = (run / FILE).read_bytes()
    words = [*CONFIG, *data_arguments(trained[1]), "--weights", run / "model_final.pth", "--images", 2, "--output"]
    monkeypatch.setattr(training_samples, "open_recordable", lambda *args: pytest.fail("the model was built first"))
    assert "folder of a training run (it has config.yaml and metrics.json)" in refusal(training_samples.main, *words, run)
    with pytest.raises(OutputError, match="folder of a training run"):
        training_samples.record_once(None, None, 2, str(run))
    monkeypatch.undo()
    assert (run / FILE).read_bytes() == before
    monkeypatch.setattr(training_samples, "save_plots", lambda recordings, folder: [])
    for _ in range(2):  # a second time it replaces its own
        training_samples.main([str(word) for word in [*words, tmp_path / "inspected", *SETTINGS]])
    assert len((tmp_path / "inspected" / FILE).read_text().splitlines()) == 1


def test_a_checkpoint_may_be_reported_into_the_folder_of_its_run(run, trained):
    before = (run / FILE).read_bytes()
    words = [*CONFIG, *data_arguments(trained[1]), "--weights", run / "model_final.pth", "--images", 2, "--output", run]
    path = main([str(word) for word in [*words, *NO_PICTURES, "--opts", *SETTINGS]])
    assert "measured on model_final.pth" in Path(path).read_text() and (run / FILE).read_bytes() == before


def test_a_recording_without_a_checkpoint_is_put_aside(trained, tmp_path):
    for name in (FILE, "metrics.json"):
        shutil.copy(trained[0] / name, tmp_path / name)
    (tmp_path / "metrics.json.1").write_text("older")
    words = [*CONFIG, *data_arguments(trained[1]), "--output-dir", tmp_path, *SETTINGS, "ANALYSIS.RECORD", True]
    assert train_net(*words, "SOLVER.MAX_ITER", 1) == 0
    for name in (FILE, "metrics.json"):
        assert (tmp_path / f"{name}.2").read_bytes() == (trained[0] / name).read_bytes()
    assert [window[:2] for window in read_recording(str(tmp_path)).windows] == [(0, 0)]
    assert (tmp_path / "metrics.json.1").read_text() == "older" and not (tmp_path / f"{FILE}.1").exists()


def test_a_run_whose_images_are_gone_has_a_page_without_pictures(run, trained, tmp_path):
    images = on_a_copy_of_its_data(run, trained[1], tmp_path)
    for image in images:
        image.unlink()
    text = page(run)
    assert "recorded in training, iterations 0 to 1" in text and "RandomSampler" in text
    assert "training images could not be used" in text and str(images[0]) in text
    os.remove(run / FILE)
    said = refusal(main, run)
    assert "no checkpoint could be measured in its place" in said and str(images[0]) in said


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_vanish_after_the_check_cost_the_pictures_only(workers, run, trained, tmp_path):
    images = on_a_copy_of_its_data(run, trained[1], tmp_path)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("NUM_WORKERS: 0", f"NUM_WORKERS: {workers}"))
    experiment, model, problem = open_to_report(str(run))
    assert not problem and experiment.build_loader().num_workers == workers
    experiment.set_run(output_dir=str(run))
    for image in images:
        image.unlink()
    text = Path(report_of_training(experiment, model)).read_text()
    assert "could not be read: " in text and "preparing the training image" in text and "Traceback" not in text


def no_objects(content):
    content["annotations"] = []


def missing_image(content):
    content["images"][1]["file_name"] = "gone.png"


def unknown_category(content):
    content["annotations"][0]["category_id"] = 99


def wrong_size(content):
    content["images"][0]["width"] = 99


@pytest.mark.parametrize("fault, message", [
    (no_objects, "object"), (missing_image, "gone.png"), (unknown_category, "99"), (wrong_size, "image 0")
])  # fmt: skip
@pytest.mark.parametrize("command", [main, training_samples.main])
def test_faulty_data_are_told_as_before_a_training(command, fault, message, trained, tmp_path):
    run, (path, images) = trained
    content = json.loads(Path(path).read_text())
    fault(content)
    faulty = tmp_path / "faulty.json"
    faulty.write_text(json.dumps(content))
    words = [*CONFIG, *data_arguments((faulty, images)), "--weights", run / "model_final.pth", "--output", tmp_path]
    said = refusal(command, *words, *(["--opts"] if command is main else []), *SETTINGS)
    assert "faulty.json): 1 error(s)" in said and message in said


@pytest.mark.parametrize("words, option", [
    (["--weights", "x.pth"], "--weights"),
    (["--train-json", "x.json", "--train-images", "x"], "--train-json, --train-images"),
    (["--opts", "SOLVER.MAX_ITER", "3"], "--opts"),
])  # fmt: skip
def test_options_that_a_run_would_ignore_are_refused(words, option, tmp_path):
    assert f"{option}: only with --config-file" in refusal(main, tmp_path, *words)


@pytest.mark.parametrize("content, reason", [
    ('{"metrics": {', "Expecting property name"),
    ("[]", "it has no metrics by task"),
    ('{"metrics": {"bbox": [1]}}', "it has no metrics by task"),
])  # fmt: skip
def test_an_unreadable_evaluation_is_missing_with_its_reason(content, reason, run):
    path = run / "inference" / "own_val" / "metrics.json"
    path.write_text(content)
    text = page(run, *NO_PICTURES)
    assert str(path) in text and reason in text


def test_one_unreadable_evaluation_hides_no_other(run):
    shutil.copytree(run / "inference" / "own_val", run / "inference" / "damaged")
    (run / "inference" / "damaged" / "metrics.json").write_text("{")
    data = gather(str(run))
    assert list(data.evaluations) == ["own_val"]
    assert os.path.join("damaged", "metrics.json") in data.missing["evaluation in part"]


def test_unreadable_metrics_are_missing_with_file_and_line(run):
    path = run / "metrics.json"
    path.write_text('{"iteration": 0}\n{"a": 1}\n3\n')
    assert f"{path}, line 2: &#39;iteration&#39; is missing" in page(run, *NO_PICTURES)


def damaged_first(first, second):
    return first[:200] + "\n" + second + "\n"


def changed(name, values):
    def change(first, second):
        line = json.loads(second)
        line["counts"][0][name] = values
        return first + "\n" + json.dumps(line) + "\n"

    return change


@pytest.mark.parametrize("damage, message", [
    (damaged_first, "line 1: "),
    (lambda first, second: "\xff\xfe\x00 garbage\n" + second, "line 1: 'utf-8' codec can't decode"),
    (lambda first, second: "[]\n" + second, "line 1: expected a JSON object, got list"),
    (lambda first, second: first + '\n{"first":2,"last":2,"counts":[]}\n', "line 2: there are no counts"),
    (lambda first, second: first + '\n{"first":2,"last":2}\n', "line 2: 'counts' is missing"),
    (changed("proposal_ious", [1]), "line 2: proposal_ious should have 20 numbers"),
    (changed("proposal_ious", "x"), "line 2: could not convert"),
    (changed("class_positives", [1]), "line 2: class_positives should have 2 numbers"),
])  # fmt: skip
def test_a_damaged_recording_is_refused_with_file_and_line(damage, message, run):
    path = run / FILE
    path.write_bytes(damage(*path.read_text().splitlines()).encode("latin-1"))
    said = refusal(main, run, *NO_PICTURES)
    assert said.startswith(f"{path}, {message}") and "\n" not in said


def test_windows_of_other_classes_are_refused(run):
    path = run / FILE
    first, second = path.read_text().splitlines()
    line = json.loads(second)
    line["counts"][0].update(class_objects=[1], class_positives=[1])
    path.write_text(first + "\n" + json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="imbalance.jsonl: its windows differ in the number of classes"):
        read_recording(str(run))


def test_only_the_last_line_may_be_half_written(run):
    path = run / FILE
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n" + second[:300])
    assert [window[:2] for window in read_recording(str(run)).windows] == [(0, 0)]


@pytest.mark.parametrize("content", ["", '{"iteration": 0, "gradients": {"sum": 1.0}}\n', '{"first": 0, "la'])
def test_without_a_window_the_checkpoint_is_measured(content, run):
    (run / FILE).write_text(content)
    assert find_recording(str(run)) is None
    assert "measured on the run&#39;s last checkpoint" in page(run, *NO_PICTURES, "--images", "2")
    assert (run / FILE).read_text() == content, "the run's own file stays as it is"


def test_a_lazy_run_whose_component_cannot_be_imported_has_a_page(run):
    config = run / "config.yaml"
    open_experiment(quick_config("faster_rcnn", "py"), ["train.device=cpu"]).save_config(str(config))
    own = config.read_text().replace("d2_balanced.modeling.sampling.RandomSampler", "no_such_package.Sampler")
    config.write_text(own)
    text = page(run)
    assert "recorded in training" in text and "no_such_package" in text and "PYTHONPATH" in text
    os.remove(run / FILE)
    said = refusal(main, run)
    assert "no checkpoint could be measured" in said and "no_such_package" in said
