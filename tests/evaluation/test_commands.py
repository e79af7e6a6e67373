"""The commands that compare two evaluations and group images by number of objects; reading files."""

import json
import math

import pytest
from d2_balanced.evaluation import ObjectCountGroups, by_objects, compare
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.evaluation.detections import load_results
from evaluation.coco_data import random_dataset, random_results


def write_metrics(folder, metrics):
    folder = folder / "inference" / "val"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    return folder / "metrics.json"


def test_compare(tmp_path, capsys):
    first = write_metrics(tmp_path / "a", {"bbox": {"AP": 40.0, "AP90": 5.0, "APl": None}})
    write_metrics(tmp_path / "b", {"bbox": {"AP": 42.5, "APl": 1.0}, "segm": {"AP": 30.0}})
    rows = compare.main([str(first), str(tmp_path / "b")])
    assert rows == [
        ("bbox", "AP", 40.0, 42.5, 2.5),
        ("bbox", "AP90", 5.0, None, None),
        ("bbox", "APl", None, 1.0, None),
        ("segm", "AP", None, 30.0, None),
    ]
    assert "+2.50" in capsys.readouterr().out


WRONG_METRICS = [(None, "0 metrics.json"), ("[]", "not the metrics.json"), ("{", "metrics.json is not a JSON file")]


@pytest.mark.parametrize("content, message", WRONG_METRICS)
def test_compare_names_a_wrong_file(tmp_path, content, message):
    if content is not None:
        write_metrics(tmp_path, {}).write_text(content)
    with pytest.raises(SystemExit, match=message):
        compare.main([str(tmp_path), str(tmp_path)])


def test_compare_does_not_guess_between_several(tmp_path):
    for name in "ab":
        write_metrics(tmp_path / name, {})
    with pytest.raises(ValueError, match="2 metrics.json of an evaluation; name one"):
        compare.load_metrics(tmp_path)


def test_compare_finds_a_run_behind_a_link(tmp_path):
    write_metrics(tmp_path / "disk" / "run", {"bbox": {"AP": 40.0}})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "disk" / "run")
    assert compare.load_metrics(tmp_path / "runs") == {"bbox": {"AP": 40.0}}


def test_by_objects_command(tmp_path, capsys):
    coco = random_dataset(0)
    (tmp_path / "gt.json").write_text(json.dumps(coco))
    (tmp_path / "results.json").write_text(json.dumps(random_results(0, coco)))
    files = ["--gt", str(tmp_path / "gt.json"), "--results", str(tmp_path / "results.json")]
    values = by_objects.main([*files, "--starts", "1", "4", "100"])
    assert values["images[1-3]"] + values["images[4-99]"] > 5 and values["images[100+]"] == 0
    assert values["AP[1-3]"] > 0 and math.isnan(values["AP[100+]"])
    assert "no image has 100+ objects" in capsys.readouterr().out


@pytest.mark.parametrize("starts", [(), (0, 3), (4, 1), (1, 1), (1.5, 3)])
def test_groups_are_checked(starts):
    with pytest.raises(ValueError, match="ObjectCountGroups: starts"):
        ObjectCountGroups(starts)


@pytest.mark.parametrize("content, message", [
    ("{", "is not a JSON file"),
    ("{}", "a COCO results file is a list"),
    ('[{"image_id": 1, "bbox": []}]', r"number 0: \['category_id', 'score'\] is missing"),
])  # fmt: skip
def test_wrong_results_files_are_named(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"results.json.*{message}"):
        load_results(path)


@pytest.mark.parametrize("change, message", [
    (lambda coco: coco.pop("categories"), r"'val' lacks \['categories'\]"),
    (lambda coco: coco["images"][0].pop("width"), r"image 5 lacks \['width'\]"),
    (lambda coco: coco["annotations"][0].pop("bbox"), r"annotation 1 lacks \['bbox'\]"),
    (lambda coco: coco["annotations"][0].update(image_id=999), "annotation 1: its image_id 999"),
    (lambda coco: coco["annotations"][0].update(category_id=999), "annotation 1: its category_id 999"),
])  # fmt: skip
def test_faulty_ground_truth_is_named(change, message):
    coco = random_dataset(1)
    change(coco)
    with pytest.raises(ValueError, match=message):
        GroundTruth(coco, "val")
