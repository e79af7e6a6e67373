"""The evaluation after every stage is that of a detector which stops there, and everything is written."""

import csv
import json
import os
import shutil

import pytest
import torch
from d2_balanced.analysis import ap_by_stage
from d2_balanced.modeling.roi_heads import CascadeStages, RecursiveStages, SingleStage
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, train_net

R3 = os.path.join(ROOT, "projects", "R3CNN", "configs", "r3_mask_quick.yaml")
LAZY = os.path.join(ROOT, "projects", "R3CNN", "configs", "r3_quick.py")
SETTINGS = [*TINY, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "[0.5, 0.6]"]
SETTINGS += ["MODEL.BALANCED.STAGES.LOSS_WEIGHTS", "[1.0, 0.5]", "SEED", "1"]
ROWS = ["after 1", "after 2", "after 3", "stage 2 alone", "stage 3 alone"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Arguments of the validation data, and a checkpoint."""
    folder = tmp_path_factory.mktemp("r3")
    data = make_dataset(folder / "data", images=3)
    arguments = ["--config-file", R3, *data_arguments(data, data), "--output-dir", folder / "run"]
    assert train_net(*arguments, *SETTINGS, "SOLVER.MAX_ITER", 2) == 0
    weights = str(folder / "run" / "model_final.pth")
    content = torch.load(weights, weights_only=True)
    for name in ("cls_score", "bbox_pred"):
        content["model"][f"roi_heads.box_predictor.{name}.weight"] *= 30  # so that boxes really move
    torch.save(content, weights)
    return data_arguments(data, data)[4:], weights


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The command's folder and results, for two checkpoints."""
    data, weights = trained
    folder = tmp_path_factory.mktemp("stages")
    copy = shutil.copy(weights, folder / "copy.pth")
    arguments = ["--config-file", R3, *data, "--up-to", "3", "--weights", weights, str(copy)]
    return folder / "out", ap_by_stage.main([*arguments, "--output", str(folder / "out"), *SETTINGS])


def detections(folder):
    (path,) = folder.rglob("coco_instances_results.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("row, settings", [
    ("after_1", ["MODEL.BALANCED.STAGES.NUM_TEST", 1]),
    ("after_3", ["MODEL.BALANCED.STAGES.NUM_TEST", 3]),
    ("stage_2_alone", ["MODEL.BALANCED.STAGES.NUM_TEST", 2, "MODEL.BALANCED.STAGES.MERGE", "last"]),
])  # fmt: skip
def test_a_row_is_the_evaluation_of_a_detector_that_stops_there(row, settings, trained, evaluated, tmp_path):
    data, weights = trained
    words = ["--config-file", R3, *data, "--eval-only", "--output-dir", tmp_path, *SETTINGS]
    assert train_net(*words, "MODEL.WEIGHTS", weights, *settings) == 0
    found = detections(tmp_path)
    assert len(found) > 3
    assert detections(evaluated[0] / row / "1") == detections(evaluated[0] / row / "2") == found


def test_rows_differ(evaluated):
    scores = [tuple(d["score"] for d in detections(evaluated[0] / name.replace(" ", "_") / "1")) for name in ROWS]
    assert len(set(scores)) == len(ROWS)


def test_the_tables_have_every_row_checkpoint_and_metric(evaluated):
    folder, results = evaluated
    assert [list(result) for result in results] == [ROWS, ROWS]
    lines = (folder / "stages.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ROWS
    assert "segm AP90" in lines[0] and "+- 0.00" in lines[2]
    content = json.loads((folder / "stages.json").read_text())
    assert [set(checkpoint["rows"]) for checkpoint in content] == [set(ROWS)] * 2
    with open(folder / "stages.csv", newline="") as file:
        found = [row for row in csv.DictReader(file) if (row["task"], row["metric"]) == ("bbox", "AP50")]
    assert [row["row"] for row in found] == ROWS * 2
    assert float(found[1]["value"]) == results[0]["after 2"]["bbox"]["AP50"]


def test_a_lazy_config_is_evaluated(tmp_path):
    data = make_dataset(tmp_path / "data", images=2)
    lazy = [*LAZY_TINY, "model.proposal_generator.post_nms_topk=[20,10]"]
    assert train_net("--config-file", LAZY, *data_arguments(data), "--output-dir", tmp_path / "run", *lazy,
                     "train.max_iter=1") == 0  # fmt: skip
    arguments = ["--config-file", LAZY, *data_arguments(data, data)[4:], "--up-to", "1"]
    weights = str(tmp_path / "run" / "model_final.pth")
    (result,) = ap_by_stage.main([*arguments, "--weights", weights, "--output", str(tmp_path / "out"), *lazy])
    assert list(result) == ["after 1"] and "AP50" in result["after 1"]["bbox"]


def test_the_rows_of_a_config():
    names = [row.name for row in ap_by_stage.stage_rows(RecursiveStages(num_test=2))]
    assert names == ["after 1", "after 2", "after 3", "stage 2 alone", "stage 3 alone"]
    assert [row.name for row in ap_by_stage.stage_rows(SingleStage())] == ["after 1"]
    with pytest.raises(ValueError, match="num_test must be from 1 to 3, got 4"):
        ap_by_stage.stage_rows(CascadeStages(), up_to=4)


def test_settings_that_are_taken_for_weights_are_refused(trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ap_by_stage.main(["--config-file", R3, "--output", str(tmp_path), "--weights", trained[1], "SEED", "1"])
    assert "there is no file 'SEED'" in capsys.readouterr().err
