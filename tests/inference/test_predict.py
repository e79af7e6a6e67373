"""A trained run finds objects: as the evaluation does, in every form of image, by a command that loses nothing."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from d2_balanced.data.image_file import read_image
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from d2_balanced.inference import Predictor
from d2_balanced.inference.command import main
from d2_balanced.inference.images import find_images
from d2_balanced.utils.errors import DataError
from PIL import Image
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net

ALL = ("--score", "0", "--no-pictures")  # what the evaluation keeps


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained run, ``run``, its four validation images, ``val``, and no training data any more."""
    folder = tmp_path_factory.mktemp("predict")
    data = [make_dataset(folder / "train"), make_dataset(folder / "val", images=4, seed=1)]
    config = ["--config-file", quick_config("mask_rcnn"), "--output-dir", folder / "run"]
    assert train_net(*config, *data_arguments(*data), *TINY, "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", 2) == 0
    shutil.rmtree(folder / "train")
    return folder


@pytest.fixture(scope="module")
def predictor(place):
    return Predictor.from_run(place / "run", str(place / "run" / "model_final.pth"))


def predict(place, output, *words):
    """The exit status of the command, and what stands in its two files."""
    status = 0
    try:
        main(["--run", str(place / "run"), "--output", str(output), *map(str, words)])
    except SystemExit as stop:
        status = stop.code
    with open(output / "predictions.json", encoding="utf-8") as file:
        found = json.load(file)
    with open(output / "predictions.csv", encoding="utf-8", newline="") as file:
        return status, found, list(csv.DictReader(file))


def message(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 2
    return str(stop.value)


def same(first, second):
    fields = first.get_fields()
    assert set(fields) == set(second.get_fields()) and first.image_size == second.image_size and len(first)
    for name in fields:
        one, other = (getattr(x.get(name), "tensor", x.get(name)) for x in (first, second))
        assert torch.equal(one, other), name


def by_content(results):
    keys = ("category_id", "bbox", "score", "segmentation")
    return sorted(json.dumps({key: result[key] for key in keys}) for result in results)


def test_the_files_hold_the_detections_of_the_evaluation_to_the_bit(place, tmp_path):
    (path,) = (place / "run" / "inference").glob("*/coco_instances_results.json")
    evaluated = json.loads(path.read_text())
    weights = ("--weights", place / "run" / "model_final.pth")
    status, found, rows = predict(place, tmp_path / "out", "--input", place / "val", *weights, *ALL)
    assert status == 0 and len(found) == len(rows) > 0
    for number in range(4):  # the image ids of the set are those in the file names
        of_file = [item for item in found if os.path.basename(item["file_name"]) == f"{number}.png"]
        assert {item["image_id"] for item in of_file} <= {number + 1}
        assert by_content(of_file) == by_content(r for r in evaluated if r["image_id"] == number)


def test_a_lazy_run_whose_checkpoint_does_not_know_its_classes(tmp_path):
    train, images = make_dataset(tmp_path / "train", images=2)
    data = OwnData(train, images, train, images)
    experiment = open_experiment(quick_config("faster_rcnn", "py"), [*LAZY_TINY, "train.device=cpu"], data)
    experiment.use_own_data()
    experiment.save_config(str(tmp_path / "config.yaml"))
    BalancedCheckpointer(experiment.build_model(), str(tmp_path)).save("model_final")
    predictor = Predictor.from_run(tmp_path)
    assert predictor.weights == str(tmp_path / "model_final.pth") and predictor.class_names == ["class 0", "class 1"]
    for inputs in experiment.build_test(experiment.test_datasets[0])[0]:
        with torch.no_grad():
            (expected,) = predictor.model(inputs)
        same(predictor(inputs[0]["file_name"]), expected["instances"])


def test_a_path_an_array_and_a_pillow_image_are_one(place, predictor):
    path = place / "val" / "1.png"
    found = predictor(path)
    same(found, predictor(read_image(str(path), format="RGB")))
    same(found, predictor(Image.open(path)))
    assert found.image_size == (48, 64) and not predictor.model.training


def test_a_list_gives_a_list_in_its_order(place, predictor):
    paths = [str(place / "val" / f"{k}.png") for k in (2, 0, 1)]
    for path, found in zip(paths, predictor(paths)):
        same(found, predictor(path))
    assert [found.image_size for found in predictor(paths, batch_size=2)] == [(48, 64), (64, 48), (48, 64)]
    assert predictor([]) == []
    with pytest.raises(ValueError, match="batch_size"):
        predictor(paths, batch_size=0)


@pytest.mark.parametrize("wrong, told", [
    (np.zeros((4, 4), np.uint8), r"RGB image \(H, W, 3\) of uint8"), (np.zeros((4, 4, 3)), "float64"),
    (Image.new("F", (4, 4)), "floating-point"), (7, "not a int"), ("nowhere.jpg", "nowhere.jpg"),
])  # fmt: skip
def test_what_is_no_image_is_refused(predictor, wrong, told):
    with pytest.raises(DataError, match=told):
        predictor(wrong)


def test_plain_dicts_have_names(place, predictor):
    instances = predictor(place / "val" / "0.png")
    objects = predictor.to_dicts(instances)
    assert predictor.class_names == ["dark", "light"]
    assert [{"dark": 3, "light": 7}[item["class"]] for item in objects] == [item["category_id"] for item in objects]
    assert [item["box"] for item in objects] == instances.pred_boxes.tensor.tolist()
    assert json.loads(json.dumps(objects)) == objects
    assert predictor.to_dicts(instances[instances.scores > 2]) == []


def test_the_best_checkpoint_is_taken_unless_another_is_named(place):
    assert Predictor.from_run(place / "run").weights == str(place / "run" / "model_best.pth")
    assert "no_such.pth" in message("--run", place / "run", "--weights", "no_such.pth", "--input", place / "val",
                                    "--output", place / "unused")  # fmt: skip


def test_score_and_max_leave_the_best(place, predictor, tmp_path):
    path = place / "val" / "1.png"
    _, everything, _ = predict(place, tmp_path / "a", "--input", path, *ALL)
    _, few, _ = predict(place, tmp_path / "b", "--input", path, *ALL, "--max", 2)
    scores = sorted((item["score"] for item in everything), reverse=True)
    assert [item["score"] for item in few] == scores[:2]
    _, good, _ = predict(place, tmp_path / "c", "--input", path, *ALL, "--score", scores[1])
    assert [item["score"] for item in good] == [score for score in scores if score >= scores[1]]


def test_pictures_show_what_was_found_and_keep_their_size(place, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "A.bmp"):
        Image.open(place / "val" / "1.png").save(tmp_path / "in" / name)
    predict(place, tmp_path / "out", "--input", tmp_path / "in", "--score", 0, "--max", 1)
    assert sorted(os.listdir(tmp_path / "out" / "pictures")) == ["A.jpg", "a_2.jpg"]
    picture, image = (np.asarray(Image.open(p), dtype=int) for p in (
        tmp_path / "out" / "pictures" / "A.jpg", place / "val" / "1.png"))  # fmt: skip
    assert picture.shape == image.shape and abs(picture - image).max() > 60


def test_what_cannot_be_decoded_is_told_at_the_end_and_the_rest_is_kept(place, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    shutil.copy(place / "val" / "1.png", tmp_path / "in" / "=good.png")
    (tmp_path / "in" / "bad.png").write_bytes((place / "val" / "0.png").read_bytes()[:200])
    monkeypatch.chdir(tmp_path / "in")
    words = ["--input", "bad.png", "=good.png", *ALL, "--batch", 2]
    status, found, rows = predict(place, tmp_path / "out", *words)
    again = message("--run", place / "run", "--output", tmp_path / "out", "--overwrite", *words)
    assert "1 of 2 image(s) could not be read" in again and "bad.png" in again
    assert status == 2 and found and {item["file_name"] for item in found} == {"=good.png"}
    assert {row["file"] for row in rows} == {"'=good.png"}  # no formula


def test_nothing_is_overwritten_unless_it_is_asked_for(place, tmp_path):
    words = ["--input", place / "val" / "1.png", "--score", 0]
    _, before, _ = predict(place, tmp_path, *words)
    both = ["--run", place / "run", "--output", tmp_path]
    assert "--overwrite" in message(*both, "--input", place / "val", "--score", 1)
    assert json.loads((tmp_path / "predictions.json").read_text()) == before
    _, after, _ = predict(place, tmp_path, "--input", place / "val" / "2.png", "--overwrite", "--score", 0)
    assert {item["file_name"] for item in after} == {str(place / "val" / "2.png")}
    assert os.listdir(tmp_path / "pictures") == ["2.jpg"]
    assert "would replace the image" in message(*both, "--input", tmp_path / "pictures", "--overwrite")


def test_inputs_are_files_folders_and_patterns_each_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "c.tif", "notes.json", ".hidden.png", "deep/d.png"):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [os.path.join("val", name) for name in ("a.JPG", "b.png", "c.tif")]
    assert find_images(["val"]) == find_images(["val/*"]) == names
    assert find_images(["**/*.png"]) == ["val/b.png", "val/deep/d.png"]
    assert find_images([names[2], "./val"]) == [names[2], "./val/a.JPG", "./val/b.png"]
    assert find_images(["val/notes.json"]) == ["val/notes.json"]  # named: tried, whatever it is called
    for word in ("nowhere", "val/*.gif", "val/*.json", "."):
        with pytest.raises(DataError, match="--input"):
            find_images([word])
