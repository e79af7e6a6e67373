"""The table that compares the arms of an experiment."""

import json
import math

import pytest
from commands import refusal

from d2_balanced.evaluation.summary import METRICS, main, summary_rows

GT = {
    "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [60, 60, 30, 30], "area": 900, "iscrowd": 0},
    ],
}


def write_run(folder, detections):
    folder = folder / "inference" / "val"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(detections))


def detection(category, box):
    return {"image_id": 1, "category_id": category, "bbox": box, "score": 0.9}


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "val.json").write_text(json.dumps(GT))
    right = [detection(1, [10, 10, 40, 40]), detection(2, [60, 60, 30, 30])]
    swapped = [detection(2, [10, 10, 40, 40]), detection(1, [60, 60, 30, 30])]
    for seed in range(2):
        write_run(tmp_path / "right" / str(seed), right)
        write_run(tmp_path / "swapped" / str(seed), swapped)
    return tmp_path


def test_arms_side_by_side(experiment, capsys):
    arms = [f"{name}={experiment / name}" for name in ("right", "swapped")]
    rows = main(["--gt", str(experiment / "val.json"), *arms])
    right, swapped = [dict(zip(["arm", "runs", *METRICS, "delta"], row)) for row in rows]
    assert right["runs"] == 2 and right["AP"] == "100.00 +- 0.00" and right["delta"] == ""
    # Boxes of the other class count only where classes are ignored.
    assert swapped["AP"] == "0.00 +- 0.00" and swapped["AP75 (class-agnostic)"] == "100.00 +- 0.00"
    assert swapped["delta"].startswith("-100.00")
    assert "| right" in capsys.readouterr().out


def test_an_arm_is_a_pattern_of_folders_too(experiment):
    right = experiment / "right"
    for seed in range(2):
        (right / str(seed) / "inference").rename(right / str(seed) / "inference_TTA")
    words = ["--gt", experiment / "val.json", f"swapped={experiment / 'swapped'}", f"one={right / '0' / 'inference_TTA'}"]
    rows = main([str(word) for word in [*words, f"TTA={right / '*' / 'inference_TTA'}"]])
    assert [row[1] for row in rows] == [2, 1, 2] and rows[2][2] == "100.00 +- 0.00"
    assert "has no run with an evaluation" in refusal(main, *words[:2], f"plain={right}")
    assert "Two arms have one name" in refusal(main, *words, words[-1])


def test_runs_of_an_arm_may_be_links(experiment):
    for seed in range(2):
        (experiment / "linked").mkdir(exist_ok=True)
        (experiment / "linked" / str(seed)).symlink_to(experiment / "right" / str(seed))
    assert main(["--gt", str(experiment / "val.json"), f"linked={experiment / 'linked'}"])[0][1] == 2


def test_difference_within_two_standard_errors_is_called_none():
    def arm(*values):
        return [dict.fromkeys(METRICS, value) for value in values]

    rows = summary_rows({"a": arm(10.0, 12.0), "b": arm(11.0, 13.0), "c": arm(20.0, 22.0)})
    error = math.sqrt(2.0 / 2 + 2.0 / 2)
    assert rows[1][-1] == f"+1.00 (SE {error:.2f}, no difference seen)"
    assert rows[2][-1] == f"+10.00 (SE {error:.2f})"
    assert summary_rows({"a": arm(10.0), "b": arm(11.0)})[1][-1] == "+1.00"


@pytest.mark.parametrize("arms, words", [(["nonsense"], "NAME=FOLDER"), (["a=missing"], "missing has no run")])
def test_bad_input(experiment, monkeypatch, arms, words):
    monkeypatch.chdir(experiment)
    with pytest.raises(SystemExit, match=words):
        main(["--gt", "val.json", *arms])
