"""The evaluator around the metrics: data sets, files, explanations, detectron2's own evaluator as a second opinion."""

import csv
import json
import math

import pytest
import torch
from d2_balanced.evaluation import COCODetectionEvaluator, ObjectCountGroups, build_evaluator
from d2_balanced.evaluation.coco_metrics import evaluate_coco
from d2_balanced.evaluation.detections import internal_detections
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.evaluation.write_results import class_table
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from evaluation.coco_data import SIZE, random_dataset, random_results
from evaluation.conftest import model_outputs


def run(evaluator, inputs, outputs):
    evaluator.reset()
    for input_, output in zip(inputs, outputs):
        evaluator.process([input_], [output])
    return evaluator.evaluate()


def folder_of(tmp_path, name):
    return tmp_path / "inference" / name


def notes_of(tmp_path, name):
    return json.loads((folder_of(tmp_path, name) / "metrics.json").read_text())["notes"]


@pytest.mark.parametrize("max_dets", [100, 200])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_detectron2s_evaluator(registered, tmp_path, seed, max_dets):
    coco = random_dataset(seed)
    name = registered(coco)
    predictions = model_outputs(coco, random_results(seed, coco, 150))
    got = run(build_evaluator(name, tmp_path, max_dets=max_dets), *predictions)["bbox"]
    detectron2s = COCOEvaluator(name, output_dir=str(tmp_path / "d2"), max_dets_per_image=max_dets)
    expected = run(detectron2s, *predictions)["bbox"]
    assert len(expected) == 10
    for metric, value in expected.items():
        assert got[metric] == pytest.approx(value, abs=1e-12, nan_ok=True), metric
    ours, theirs = (folder_of(tmp_path, name), tmp_path / "d2")
    ours, theirs = (json.loads((p / "coco_instances_results.json").read_text()) for p in (ours, theirs))
    assert ours == theirs


def test_dataset_dicts_without_a_json_file_give_the_same(registered, tmp_path):
    coco = random_dataset(3)
    for annotation in coco["annotations"]:  # what detectron2's dicts keep
        annotation["bbox"] = [round(v, 3) for v in annotation["bbox"]]
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    results = random_results(3, coco)
    inputs, outputs = model_outputs(coco, results)
    with_file = run(build_evaluator(registered(coco)), inputs, outputs)
    without = run(build_evaluator(registered(coco, json_file=False), tmp_path), inputs, outputs)
    assert without["bbox"] == pytest.approx(with_file["bbox"], nan_ok=True)


def test_changed_dataset_dicts_are_never_evaluated_against_an_old_conversion(registered, tmp_path):
    coco = random_dataset(4)
    inputs, outputs = model_outputs(coco, random_results(4, coco))
    name = registered(coco, json_file=False)
    before = run(build_evaluator(name, tmp_path), inputs, outputs)["bbox"]
    del coco["annotations"][::2]
    after = run(build_evaluator(name, tmp_path), inputs, outputs)["bbox"]
    fresh = run(build_evaluator(registered(coco, json_file=False), tmp_path / "b"), inputs, outputs)["bbox"]
    assert after == pytest.approx(fresh, nan_ok=True) and after["AP"] != before["AP"]


def test_files(registered, tmp_path):
    coco = random_dataset(5)
    name = registered(coco)
    evaluator = build_evaluator(name, tmp_path, by_objects=True, class_agnostic=True)
    results = run(evaluator, *model_outputs(coco, random_results(5, coco)))
    folder = folder_of(tmp_path, name)
    report = json.loads((folder / "metrics.json").read_text())  # NaN would fail here in a strict reader
    assert "NaN" not in (folder / "metrics.json").read_text() + (folder / "metrics.csv").read_text()
    assert report["metrics"]["bbox"]["AP"] == results["bbox"]["AP"]
    assert report["images"] == report["images_predicted"] == 12 and report["max_dets"] == 100
    assert report["metrics"]["bbox"]["AP-class3"] is None and math.isnan(results["bbox"]["AP-class3"])
    with open(folder / "metrics.csv") as file:
        rows = {(row["task"], row["metric"]): row["value"] for row in csv.DictReader(file)}
    assert float(rows["bbox", "AP90"]) == results["bbox"]["AP90"] and rows["bbox", "AP-class3"] == ""
    assert float(rows["bbox_agnostic", "AP75"]) == results["bbox_agnostic"]["AP75"]
    assert ("bbox_by_objects", "AP[8+]") in rows
    with open(folder / "per_class.csv") as file:
        classes = list(csv.DictReader(file))
    assert [row["class"] for row in classes] == ["class0", "class1", "class2", "class3"]
    assert float(classes[0]["AP75"]) >= 0 and classes[3]["AP"] == "" and classes[3]["objects"] == "0"
    assert len(json.loads((folder / "coco_instances_results.json").read_text())) == 11 * 20


def test_one_class_agnostic_is_the_same_as_by_class(registered):
    coco = random_dataset(6, num_classes=2)
    coco["categories"] = coco["categories"][:1]
    results = [r for r in random_results(6, coco) if r["category_id"] == 10]
    got = run(build_evaluator(registered(coco), class_agnostic=True), *model_outputs(coco, results))
    assert got["bbox_agnostic"] == got["bbox"] and got["bbox"]["AP75"] > 0
    assert not any(key.startswith("AP-") for key in got["bbox"])


def test_class_agnostic_is_the_ap_of_one_merged_class(registered):
    coco = random_dataset(22)
    results = random_results(22, coco)
    results = [{**r, "score": r["score"] + 1e-6 * k} for k, r in enumerate(results)]  # COCO breaks ties by class
    predictions = model_outputs(coco, results)
    got = run(build_evaluator(registered(coco), class_agnostic=True), *predictions)["bbox_agnostic"]
    merged = {**coco, "categories": coco["categories"][:1]}
    merged["annotations"] = [{**a, "category_id": 10} for a in coco["annotations"]]
    for output in predictions[1]:
        output["instances"].pred_classes[:] = 0
    alone = run(build_evaluator(registered(merged)), *predictions)["bbox"]
    assert got == pytest.approx(alone, abs=1e-12, nan_ok=True)


def test_nothing_is_written_without_an_output_folder(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco = random_dataset(7)
    name = registered(coco)
    before = set(tmp_path.rglob("*"))
    run(build_evaluator(name), *model_outputs(coco, random_results(7, coco)))
    assert set(tmp_path.rglob("*")) == before


def test_masks(registered, tmp_path):
    coco = random_dataset(8, num_images=3, num_classes=2, masks=True)
    inputs, outputs = model_outputs(coco, [])
    with_masks, empty = random_results(8, coco, 0), 0
    for output, image in zip(outputs, coco["images"]):
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        empty += not objects
        output["instances"] = perfect(objects)
        with_masks += objects
    results = run(build_evaluator(registered(coco), tmp_path), inputs, outputs)
    assert list(results) == ["bbox", "segm"]
    assert results["segm"]["AP"] == pytest.approx(100) and results["bbox"]["AP"] == pytest.approx(100)
    boxes_only = run(build_evaluator(registered(coco), tmp_path, tasks=["bbox"]), inputs, outputs)
    assert list(boxes_only) == ["bbox"]


def test_masks_are_ranked_by_mask_scores_and_boxes_by_scores(registered, tmp_path):
    """Every object twice, right and with another object's mask: the order of right and wrong decides the AP."""
    coco = random_dataset(8, num_images=3, num_classes=2, masks=True)
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = 0
    inputs, outputs = model_outputs(coco, [])
    for output, image in zip(outputs, coco["images"]):
        right = perfect([a for a in coco["annotations"] if a["image_id"] == image["id"]])
        wrong = perfect([a for a in coco["annotations"] if a["image_id"] == image["id"]])
        wrong.pred_masks = torch.zeros_like(wrong.pred_masks)
        wrong.pred_boxes = Boxes(torch.zeros_like(wrong.pred_boxes.tensor))
        right.mask_scores, wrong.mask_scores = torch.full((len(right),), 0.1), torch.full((len(wrong),), 0.8)
        right.scores, wrong.scores = wrong.mask_scores, right.mask_scores
        output["instances"] = Instances.cat([wrong, right])
    results = run(build_evaluator(registered(coco), tmp_path), inputs, outputs)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] < 60


def perfect(objects):
    """Predictions that equal the objects, of class 0."""
    import pycocotools.mask as mask_util

    instances = Instances((SIZE, SIZE))
    x, y, w, h = torch.tensor([a["bbox"] for a in objects], dtype=torch.float64).reshape(-1, 4).T
    instances.pred_boxes = Boxes(torch.stack([x, y, x + w, y + h], dim=1))
    instances.scores = torch.linspace(0.9, 0.5, len(objects))
    instances.pred_classes = torch.zeros(len(objects), dtype=torch.int64)
    masks = [torch.from_numpy(mask_util.decode(a["segmentation"])) for a in objects]
    instances.pred_masks = torch.stack(masks).bool() if masks else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    return instances


def test_masks_without_mask_annotations_are_explained(registered, tmp_path):
    coco = random_dataset(9, num_images=2)
    inputs, outputs = model_outputs(coco, random_results(9, coco))
    for output in outputs:
        output["instances"].pred_masks = torch.zeros(len(output["instances"]), SIZE, SIZE, dtype=torch.bool)
    name = registered(coco)
    assert list(run(build_evaluator(name, tmp_path), inputs, outputs)) == ["bbox"]
    assert any("annotation 1 has no mask" in note for note in notes_of(tmp_path, name))


def test_no_predictions(registered, tmp_path):
    coco = random_dataset(10)
    name = registered(coco)
    got = run(build_evaluator(name, tmp_path), *model_outputs(coco, []))["bbox"]
    assert got["AP"] == 0 and any("there are no predictions" in note for note in notes_of(tmp_path, name))


def test_a_model_that_was_given_no_image_at_all(registered, tmp_path):
    coco = random_dataset(10)
    name = registered(coco)
    assert run(build_evaluator(name, tmp_path), [], [])["bbox"]["AP"] == 0
    assert any("12 of 12 images were not given" in note for note in notes_of(tmp_path, name))


def test_low_scores_and_boxes_that_fit_nothing(registered, tmp_path):
    coco = random_dataset(11)
    results = [{**r, "bbox": [0.0, 0.0, 2.0, 2.0], "score": 0.01} for r in random_results(11, coco)]
    name = registered(coco)
    run(build_evaluator(name, tmp_path), *model_outputs(coco, results))
    notes = " ".join(notes_of(tmp_path, name))
    assert "highest is 0.0100" in notes and "wrong box format" in notes


def test_boxes_of_the_wrong_class(registered, tmp_path):
    coco = random_dataset(12)
    results = [
        {"image_id": a["image_id"], "category_id": 16, "bbox": a["bbox"], "score": 0.9} for a in coco["annotations"]
    ]
    name = registered(coco)
    run(build_evaluator(name, tmp_path), *model_outputs(coco, results))
    assert any("class ids mixed up" in note for note in notes_of(tmp_path, name))


def test_unknown_image_ids(registered, tmp_path):
    coco = random_dataset(13)
    inputs, outputs = model_outputs(coco, random_results(13, coco))
    name = registered(coco)
    run(build_evaluator(name, tmp_path), [{"image_id": i["image_id"] + 1000} for i in inputs], outputs)
    notes = " ".join(notes_of(tmp_path, name))
    assert "image ids (such as 1008" in notes and "no prediction has ids that the ground truth knows" in notes


def test_class_index_beyond_the_data_set(registered, tmp_path):
    coco = random_dataset(14)
    inputs, outputs = model_outputs(coco, random_results(14, coco))
    outputs[1]["instances"].pred_classes[:] = 7
    name = registered(coco)
    run(build_evaluator(name, tmp_path), inputs, outputs)
    assert any("class index (up to 7)" in note and "NUM_CLASSES" in note for note in notes_of(tmp_path, name))


def test_missing_sizes_and_classes_are_named(registered, tmp_path):
    coco = random_dataset(15)
    for annotation in coco["annotations"]:
        annotation["area"] = 50.0 * 50.0
    name = registered(coco)
    run(build_evaluator(name, tmp_path), *model_outputs(coco, random_results(15, coco)))
    notes = " ".join(notes_of(tmp_path, name))
    assert "APs is undefined" in notes and "APl is undefined" in notes and "APm" not in notes
    assert "1 classes are left out of the mean, having no object: 'class3'" in notes


def test_no_ground_truth(registered, tmp_path):
    coco = {**random_dataset(16), "annotations": []}
    for json_file in (True, False):
        name = registered(coco, json_file=json_file)
        got = run(build_evaluator(name, tmp_path), *model_outputs(coco, random_results(16, coco)))
        assert math.isnan(got["bbox"]["AP"])
        assert any("has no object" in note for note in notes_of(tmp_path, name))


def test_a_test_set_without_annotations_gets_its_results_file(registered, tmp_path):
    coco = random_dataset(17)
    name = registered(coco)
    predictions = model_outputs(coco, random_results(17, coco))
    from detectron2.data import MetadataCatalog

    path = MetadataCatalog.get(name).json_file
    with open(path, "w") as file:
        json.dump({key: coco[key] for key in ("images", "categories")}, file)
    assert run(build_evaluator(name, tmp_path), *predictions) == {}
    assert (folder_of(tmp_path, name) / "coco_instances_results.json").exists()
    assert any("no annotations" in note for note in notes_of(tmp_path, name))


def test_the_same_image_from_two_processes_counts_once(registered):
    coco = random_dataset(18)
    inputs, outputs = model_outputs(coco, random_results(18, coco))
    once = run(build_evaluator(registered(coco)), inputs, outputs)
    twice = run(build_evaluator(registered(coco)), inputs + inputs[:1], outputs + outputs[:1])
    assert once["bbox"] == pytest.approx(twice["bbox"], abs=0, nan_ok=True)


def test_proposals(registered, tmp_path):
    coco = random_dataset(19)
    inputs, outputs = model_outputs(coco, random_results(19, coco, 120))
    for output in outputs:
        found = output.pop("instances")
        output["proposals"] = Instances((SIZE, SIZE), proposal_boxes=found.pred_boxes, objectness_logits=found.scores)
    name = registered(coco)
    results = run(build_evaluator(name, tmp_path), inputs, outputs)
    assert list(results) == ["box_proposals"]
    assert 0 < results["box_proposals"]["AR@100"] <= results["box_proposals"]["AR@300"]
    assert (folder_of(tmp_path, name) / "box_proposals.pkl").exists()


def test_crowdhuman_data_sets_get_their_metrics(registered):
    coco = random_dataset(20, num_classes=2)
    coco["categories"] = coco["categories"][:1]
    results = [r for r in random_results(20, coco) if r["category_id"] == 10]
    name = registered(coco, json_file=False, evaluator_type="crowdhuman")
    got = run(build_evaluator(name), *model_outputs(coco, results))
    assert list(got) == ["bbox", "crowdhuman"] and 0 < got["crowdhuman"]["mMR"] <= 100


def test_by_objects_is_the_ap_of_those_images_alone(registered):
    coco = random_dataset(21)
    results = random_results(21, coco)
    groups = ObjectCountGroups(starts=(1, 3))
    evaluator = COCODetectionEvaluator(registered(coco), extra_metrics=[groups])
    got = run(evaluator, *model_outputs(coco, results))["bbox_by_objects"]
    objects = [a["image_id"] for a in coco["annotations"] if not a["iscrowd"]]
    counts = {image["id"]: objects.count(image["id"]) for image in coco["images"]}
    for group, wanted in {"1-2": (1, 2), "3+": range(3, 100)}.items():
        ids = {image_id for image_id, count in counts.items() if count in wanted}
        part = {"categories": coco["categories"]}
        part["images"] = [i for i in coco["images"] if i["id"] in ids]
        part["annotations"] = [a for a in coco["annotations"] if a["image_id"] in ids]
        alone = run(build_evaluator(registered(part)), *model_outputs(part, results))["bbox"]
        assert got[f"images[{group}]"] == len(ids) > 0
        assert got[f"AP[{group}]"] == pytest.approx(alone["AP"], abs=1e-12)
        assert got[f"AP75[{group}]"] == pytest.approx(alone["AP75"], abs=1e-12)


def test_every_value_of_an_evaluation_can_choose_the_best_checkpoint(registered):
    coco = random_dataset(22, num_classes=2)
    coco["categories"][0]["name"] = coco["categories"][1]["name"]  # "name (id 1)" in the metrics
    inputs, outputs = model_outputs(coco, random_results(22, coco))
    evaluator = build_evaluator(registered(coco), max_dets=30, class_agnostic=True, by_objects=True)
    results = run(evaluator, inputs, outputs)
    for output in outputs:
        found = output["instances"]
        output["proposals"] = Instances((SIZE, SIZE), proposal_boxes=found.pred_boxes, objectness_logits=found.scores)
    results.update(run(evaluator, inputs, outputs))
    names = [f"{task}/{metric}" for task, metrics in results.items() for metric in metrics]
    assert {"bbox/AR@30", "bbox_agnostic/AP90", "box_proposals/ARl@1000", "bbox_by_objects/AP[8+]"} < set(names)
    assert any(name.startswith("bbox/AP-") for name in names)
    for name in [*names, "segm/AP50"]:
        evaluator.require_metric(name)


@pytest.mark.parametrize("name, message", [
    ("bbox/APP", "no value 'bbox/APP'.*bbox/AP, segm/AP, box_proposals/AR@100.*Did you mean bbox/AP"),
    ("AP75", "Did you mean bbox/AP75"),
    ("bbox/AR@100", "no value"),  # with at most 30 detections
    ("bbox/AP-", "no value"),
    ("bbox/AP-unknown", "no value"),
    ("bbox_agnostic/AP", "no value"),
    ("bbox_by_objects/AP[8+]", "no value"),
    ("", "no value"),
])  # fmt: skip
def test_a_metric_that_no_evaluation_will_have_is_named(registered, name, message):
    evaluator = build_evaluator(registered(random_dataset(23, num_classes=2)), max_dets=30)
    with pytest.raises(ValueError, match=message):
        evaluator.require_metric(name)


@pytest.mark.parametrize("settings, message", [
    ({"max_dets": 0}, "max_dets must be a whole number from 1, got 0"),
    ({"max_dets": 10.0}, "max_dets"),
    ({"tasks": ["boxes"]}, "tasks must be a subset.*boxes"),
    ({"tasks": "bbox"}, "tasks must be a subset"),
    ({"tasks": []}, "tasks must be a subset"),
    ({"backend": "x"}, "COCODetectionEvaluator: backend must be one of"),
])  # fmt: skip
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        COCODetectionEvaluator("any", **settings)


def test_classes_of_one_name_lose_no_metric(registered, tmp_path):
    coco = random_dataset(5)
    for category in coco["categories"][:2]:
        category["name"] = "fish"
    name = registered(coco)
    predictions = model_outputs(coco, random_results(5, coco))
    report = run(build_evaluator(name, tmp_path), *predictions)["bbox"]
    per_class = {key: value for key, value in report.items() if key.startswith("AP-")}
    assert list(per_class) == ["AP-fish (id 10)", "AP-fish (id 12)", "AP-class2", "AP-class3"]
    expected = run(build_evaluator(registered(random_dataset(5))), *predictions)["bbox"]
    assert list(per_class.values())[:3] == [expected[f"AP-class{k}"] for k in range(3)]
    with open(folder_of(tmp_path, name) / "per_class.csv") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["fish (id 10)", "fish (id 12)", "class2", "class3"]


@pytest.mark.parametrize("formula", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_class_names_are_text_in_tables(registered, tmp_path, formula):
    coco = random_dataset(5)
    coco["categories"][0]["name"], coco["categories"][1]["name"] = formula, "007"
    name = registered(coco)
    run(build_evaluator(name, tmp_path), *model_outputs(coco, random_results(5, coco)))
    with open(folder_of(tmp_path, name) / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["'" + formula.replace("\r", " "), "007", "class2", "class3"]
    assert class_table([{"class": "007", "AP": 1.0}], ("class", "AP")).splitlines()[-1].split()[0] == "007"
    report = json.loads((folder_of(tmp_path, name) / "metrics.json").read_text())
    assert report["per_class"]["bbox"][0]["class"] == formula


@pytest.mark.parametrize("missing, evaluated", [(1, True), (6, False)])
def test_objects_without_a_mask_are_left_out_of_the_evaluation_of_masks_if_they_are_few(
    registered, tmp_path, missing, evaluated
):
    coco = random_dataset(1, num_images=6, masks=True)
    results = random_results(1, coco, 15, masks=True)
    for annotation in coco["annotations"][:missing]:
        del annotation["segmentation"]
    name = registered(coco)
    evaluator = build_evaluator(name, tmp_path)
    evaluator._kinds = {"bbox", "segm"}
    index = {category["id"]: k for k, category in enumerate(coco["categories"])}
    for image in coco["images"]:
        found = [{**r, "category_id": index[r["category_id"]]} for r in results if r["image_id"] == image["id"]]
        evaluator._predictions.append((image["id"], found, None))
    report = evaluator.evaluate()
    first = coco["annotations"][0]["id"]
    note, = [note for note in notes_of(tmp_path, name) if "without a mask" in note or "has no mask" in note]
    assert ("segm" in report) == evaluated and f"{first}" in note and ("left out" in note) == evaluated
    if evaluated:
        coco["annotations"] = coco["annotations"][missing:]
        truth = GroundTruth(coco)
        expected = evaluate_coco(truth, internal_detections(truth, results).detections, "segm").summary()
        assert report["segm"]["AP"] == expected["AP"] > 0
