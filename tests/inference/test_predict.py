"""A trained run finds objects: as the evaluation does, in every form of image, by a command that loses nothing."""

import csv
import json
import os
import shutil
import signal
import sys

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
from d2_balanced.utils.errors import DataError, InstallError
from d2_balanced.utils.json_lines import read_metrics
from detectron2.structures import Boxes, Instances
from PIL import Image
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net

ALL = ("--score", "0", "--no-pictures")  # what the evaluation keeps


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained run, ``run``, its four validation images, ``val``, and no training data any more."""
    folder = tmp_path_factory.mktemp("predict")
    data = [make_dataset(folder / "train"), make_dataset(folder / "val", images=4, seed=1)]
    config = ["--config-file", quick_config("mask_rcnn"), "--output-dir", folder / "run"]
    words = ["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", 2, "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(48, 64)"]
    assert train_net(*config, *data_arguments(*data), *TINY, *words) == 0
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


@pytest.mark.parametrize("inference, words", [("inference", []), ("inference_TTA", ["--tta"])])
def test_the_files_hold_the_detections_of_the_evaluation_to_the_bit(place, tmp_path, inference, words):
    (path,) = (place / "run" / inference).glob("*/coco_instances_results.json")
    evaluated = json.loads(path.read_text())
    weights = ("--weights", place / "run" / "model_final.pth", *words)
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


@pytest.mark.parametrize("words", [["--overlap", "1"], ["--tile", "0"], ["--workers", "-1"], ["--score", "nan"]])
def test_numbers_out_of_range_are_refused_with_their_option(words, capsys):
    with pytest.raises(SystemExit):
        main(["--run", "a", "--input", "b", "--output", "c", *words])
    assert f"argument {words[0]}: has to be" in capsys.readouterr().err


def test_score_and_max_leave_the_best(place, predictor, tmp_path):
    path = place / "val" / "1.png"
    _, everything, _ = predict(place, tmp_path / "a", "--input", path, *ALL)
    _, few, _ = predict(place, tmp_path / "b", "--input", path, *ALL, "--max", 2)
    scores = sorted((item["score"] for item in everything), reverse=True)
    assert [item["score"] for item in few] == scores[:2]
    _, good, _ = predict(place, tmp_path / "c", "--input", path, *ALL, "--score", scores[1])
    assert [item["score"] for item in good] == [score for score in scores if score >= scores[1]]


def test_where_all_scores_are_too_low_the_best_is_told(place, predictor, tmp_path, capsys):
    path = place / "val" / "0.png"
    best = max(found["score"] for found in predictor.to_dicts(predictor(str(path))))
    assert predict(place, tmp_path, "--input", path, "--no-pictures", "--score", 1)[1] == []
    assert f"All have a score below --score 1: the best has {best:.3f}." in capsys.readouterr().out
    predict(place, tmp_path / "all", "--input", path, *ALL)
    assert "below --score" not in capsys.readouterr().out


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
    assert "1 of 2 file(s) could not be read" in again and "bad.png" in again
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
    with pytest.raises(DataError, match="Those of the folders in it: --input './[*][*]/[*]'"):
        find_images(["."])
    (tmp_path / "val" / "e.jfif").touch()
    os.symlink(tmp_path / "gone", tmp_path / "val" / "d.png")
    assert [os.path.basename(path) for path in find_images(["val"])[2:]] == ["c.tif", "d.png", "e.jfif"]


def test_the_augmented_evaluation_stands_beside_the_plain_one_at_the_end(place):
    lines = read_metrics(place / "run" / "metrics.json")
    evaluated = [line for line in lines if "bbox/AP" in line]
    assert [line["iteration"] for line in evaluated] == [1] and "segm_TTA/AP" in evaluated[0]
    assert "bbox_TTA/AP" in evaluated[0] and evaluated[0]["bbox_TTA/AP50"] is not None
    (metrics,) = (place / "run" / "inference_TTA").glob("*/metrics.json")
    assert set(json.loads(metrics.read_text())["metrics"]) == {"bbox", "segm"}


@pytest.mark.parametrize("wrong, told", [
    (["--device", "cuda"], "no CUDA"), (["MODEL.WEIGHTS", "x.pth"], "--weights"), (["MODEL.NO_SUCH", "1"], "NO_SUCH"),
    (["TEST.DETECTIONS_PER_IMAGE", "3", "--tta"], "--tta stands after"),
])  # fmt: skip
def test_what_the_run_cannot_do_is_told_before_anything_is_written(place, tmp_path, wrong, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--run", place / "run", "--input", place / "val", "--output", tmp_path / "out", "--score", 0, *wrong]
    assert told in message(*words)
    assert not list((tmp_path / "out").glob("*"))


def test_overrides_change_what_is_found(place, tmp_path):
    words = ["--input", place / "val" / "1.png", *ALL]
    _, few, _ = predict(place, tmp_path / "few", *words, "--device", "cpu", "TEST.DETECTIONS_PER_IMAGE", 2)
    _, many, _ = predict(place, tmp_path / "many", *words)
    assert by_content(few) == by_content(sorted(many, key=lambda item: -item["score"])[:2])


@pytest.mark.parametrize("numbers, batches", [((1, 2), [2]), ((0, 1, 2), [1, 2]), ((1, 0, 2, 1, 1), [3, 1, 1])])
def test_images_of_one_size_go_together_and_only_digits_differ(place, predictor, monkeypatch, numbers, batches):
    paths = [place / "val" / f"{k}.png" for k in numbers]  # number 0 is tall, the others are wide
    expected, sizes, detect = predictor(paths), [], predictor.detect
    monkeypatch.setattr(predictor, "detect", lambda inputs: sizes.append(len(inputs)) or detect(inputs))
    found = predictor.find([predictor.reader.inputs(path) for path in paths], batch_size=3)
    assert sizes == batches
    for alone, together in zip(expected, found):
        assert alone.image_size == together.image_size and torch.equal(alone.pred_classes, together.pred_classes)
        torch.testing.assert_close(alone.scores, together.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.pred_boxes.tensor, together.pred_boxes.tensor, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("words", [["--workers", 2], ["--workers", 2, "--batch", 3], ["--tile", 40, "--workers", 1]])
def test_workers_change_nothing(place, tmp_path, words):
    (tmp_path / "in").mkdir()
    for k in range(7):
        shutil.copy(place / "val" / f"{k % 4}.png", tmp_path / "in" / f"{k}.png")
    (tmp_path / "in" / "3.png").write_bytes(b"no image")
    given = ["--input", tmp_path / "in", *ALL, *words]
    status, found, _ = predict(place, tmp_path / "several", *given)
    _, expected, _ = predict(place, tmp_path / "one", *given, "--workers", 0)
    assert status == 2 and found == expected
    assert list(dict.fromkeys(item["image_id"] for item in found)) == [1, 2, 3, 5, 6, 7]


def test_tiles_on_the_command_line(place, tmp_path):
    words = ["--input", place / "val" / "1.png", *ALL]
    plain, covered, tiled = (predict(place, tmp_path / name, *words, *tile)[1] for name, tile in (
        ("plain", []), ("covered", ["--tile", 64]), ("tiled", ["--tile", 40, "--overlap", 0.5])))  # fmt: skip
    assert covered == plain and tiled != plain
    sizes = [item["segmentation"]["size"] for item in tiled]
    assert sizes and all(size == [48, 64] for size in sizes)


def test_supervision_s_detections(place, predictor):
    supervision = pytest.importorskip("supervision", reason="an extra: pip install 'd2_balanced[supervision]'")
    instances = predictor(place / "val" / "0.png")
    detections = predictor.to_supervision(instances)
    assert isinstance(detections, supervision.Detections) and len(detections) == len(instances)
    assert detections.data["class_name"].tolist() == [item["class"] for item in predictor.to_dicts(instances)]
    assert detections.xyxy.tolist() == instances.pred_boxes.tensor.tolist()
    assert detections.mask.shape == (len(instances), *instances.image_size)
    nothing = predictor.to_supervision(instances[instances.scores > 2])
    assert len(nothing) == 0 and len(nothing.data["class_name"]) == 0


def test_without_supervision_the_command_that_installs_it_is_told(place, predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InstallError, match=r"pip install 'd2_balanced\[supervision\]'"):
        predictor.to_supervision(predictor(place / "val" / "0.png"))


def test_scores_of_masks_are_told(predictor):
    instances = Instances((8, 8), pred_boxes=Boxes(torch.tensor([[1.0, 1, 4, 4]])), scores=torch.tensor([0.75]))
    instances.pred_classes, instances.pred_masks = torch.tensor([1]), torch.ones(1, 8, 8, dtype=torch.bool)
    instances.mask_scores = torch.tensor([0.5])
    assert [(item["score"], item["mask_score"]) for item in predictor.to_dicts(instances)] == [(0.75, 0.5)]


def test_a_video_on_the_command_line(place, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is an extra: pip install 'd2_balanced[video]'")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in (1, 2):
            image = read_image(str(place / "val" / f"{k}.png"), format="RGB")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "none.mp4").write_bytes(b"")
    words = ["--input", place / "val" / "1.png", tmp_path / "film.mp4", tmp_path / "none.mp4", "--score", 0, "--max", 2]
    status, found, _ = predict(place, tmp_path / "out", *words)
    assert status == 2 and sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "pictures/1.jpg", "predictions.csv", "predictions.json", "videos/film.mp4"]  # fmt: skip
    assert [(item["image_id"], item.get("frame"), item.get("time")) for item in found] == [
        (1, None, None)] * 2 + [(2, 0, 0.0)] * 2 + [(2, 1, 0.2)] * 2  # fmt: skip
    told = message("--run", place / "run", "--output", tmp_path / "out", "--overwrite", *words)
    assert "1 of 3 file(s) could not be read" in told and "none.mp4" in told


def test_a_signal_keeps_what_was_found(place, tmp_path, monkeypatch):
    find = Predictor.find

    def terminated(self, images, *more):
        if (tmp_path / "out" / "pictures" / "1.jpg").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return find(self, images, *more)

    monkeypatch.setattr(Predictor, "find", terminated)
    status, found, _ = predict(place, tmp_path / "out", "--input", place / "val", "--score", 0)
    assert status == 128 + signal.SIGTERM
    assert [os.path.basename(name) for name in dict.fromkeys(item["file_name"] for item in found)] == ["0.png", "1.png"]
