"""CrowdHuman's metrics against the golden numbers, and on data that break the original evaluation."""

import json
import math
import warnings

import numpy as np
import pytest
from d2_balanced.evaluation.crowdhuman import FPPI_REFS, CrowdHumanMetrics, evaluate_crowdhuman
from d2_balanced.evaluation.ground_truth import GroundTruth
from paths import shared_file
from reference import crowdhuman as reference

SETS = ["crowd", "ties", "duplicates", "ignore", "border", "iou_exactly_half", "no_gt_image", "no_det_image", "perfect",
        "no_det_at_all", "all_gt_ignored", "only_fp"]  # fmt: skip


def golden_sets():
    with open(shared_file("golden", "crowdhuman_mr.json")) as file:
        return json.load(file)["sets"]


def arrays(images):
    gts = [
        {
            "id": image["id"],
            "width": image["width"],
            "height": image["height"],
            "boxes": [gt["bbox"] for gt in image["gt"]],
            "ignore": [gt["ignore"] for gt in image["gt"]],
        }
        for image in images
    ]
    dets = {
        image["id"]: ([det["bbox"] for det in image["det"]], [det["score"] for det in image["det"]])
        for image in images
        if image["det"]
    }
    return gts, dets


def run(images, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluate_crowdhuman(*arrays(images), **settings)


def same(value, expected, tolerance):
    if expected is None or math.isnan(expected):
        return math.isnan(value)
    return abs(value - expected) <= tolerance


def test_golden_file_has_no_set_that_is_not_tested():
    assert sorted(golden_sets()) == sorted(SETS)


@pytest.mark.parametrize("name", SETS)
def test_golden(name):
    golden = golden_sets()[name]
    expected, got = golden["expected"], run(golden["images"])
    assert list(FPPI_REFS) == expected["fppi_refs"]
    for key in ("AP", "recall", "max_fppi"):
        assert same(got[key], expected[key], 1e-9), key
    expected_mr = 1.0 if name == "no_det_at_all" else expected["MR"]  # the original gives NaN there
    assert same(got["MR"], expected_mr, 1e-9)
    for got_rate, expected_rate in zip(got["miss_rate_at_refs"], expected["miss_rate_at_refs"]):
        assert same(got_rate, expected_rate, 1e-9)
    for key in ("num_gt", "num_images", "num_scored", "tp_fp_ignored_per_image"):
        assert got[key] == expected[key], key
    assert same(run(golden["images"], miss_rate_floor=1e-10)["MR"], expected["MR_floor_1e_10"], 1e-9)


@pytest.mark.parametrize("name", SETS)
def test_golden_jaccard_index(name):
    golden = golden_sets()[name]
    expected, got = golden["expected"], run(golden["images"])
    assert same(got["JI"], expected["JI_sane"], 1e-6)
    assert len(got["JI_curve"]) == len(expected["JI_curve"])
    for point, expected_point in zip(got["JI_curve"], expected["JI_curve"]):
        assert point["score_thr"] == expected_point["score_thr"]
        assert same(point["JI"], expected_point["JI"], 1e-6)
        assert [point[key] for key in "kmn"] == [expected_point[key] for key in "kmn"]


def image(boxes, ignore=None, image_id="a"):
    ignore = [0] * len(boxes) if ignore is None else ignore
    return {"id": image_id, "width": 100, "height": 100, "boxes": boxes, "ignore": ignore}


def test_unknown_image_id_is_named():
    with pytest.raises(ValueError, match="no ground truth.*'b'"):
        evaluate_crowdhuman([image([[0, 0, 10, 10]])], {"b": ([[0, 0, 10, 10]], [0.9])})


def test_image_ids_must_be_distinct():
    with pytest.raises(ValueError, match="distinct ids"):
        evaluate_crowdhuman([image([]), image([])], {})


def test_no_person_at_all_warns_and_gives_nan():
    with pytest.warns(UserWarning, match="no person"):
        got = evaluate_crowdhuman([image([[0, 0, 10, 10]], ignore=[1])], {})
    assert math.isnan(got["MR"]) and math.isnan(got["recall"]) and math.isnan(got["JI"])


def test_a_crowded_image_with_300_detections_keeps_them_all():
    boxes = [[20 * (k % 5), 5 * (k // 5), 5, 4] for k in range(100)]
    scores = np.linspace(0.9, 0.1, 300)
    got = evaluate_crowdhuman([image(boxes)], {"a": (boxes * 3, scores)})
    assert got["recall"] == 1.0 and got["num_scored"] == 300 and got["tp_fp_ignored_per_image"]["a"] == [100, 200, 0]


def coco_ground_truth(images, class_names=("person",)):
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(class_names)]
    coco = {"images": [], "annotations": [], "categories": categories}
    for img in images:
        coco["images"].append({key: img[key] for key in ("id", "width", "height")})
        for gt in img["gt"]:
            coco["annotations"].append(
                {"id": 0, "image_id": img["id"], "category_id": 7, "bbox": gt["bbox"], "iscrowd": gt["ignore"]}
            )
    return GroundTruth(coco, "golden")


def test_metrics_of_the_evaluator_equal_the_core_on_golden_data():
    golden = golden_sets()["crowd"]
    ground_truth = coco_ground_truth(golden["images"])
    detections = [
        {"image_id": ground_truth.image_index[img["id"]], "category_id": 0, **det}
        for img in golden["images"]
        for det in img["det"]
    ]
    metrics, notes = CrowdHumanMetrics()(ground_truth, detections)
    expected = golden["expected"]
    assert notes == []
    assert metrics["crowdhuman"]["mMR"] == pytest.approx(100 * expected["MR"], abs=1e-7)
    assert metrics["crowdhuman"]["AP50"] == pytest.approx(100 * expected["AP"], abs=1e-7)
    assert metrics["crowdhuman"]["JI"] == pytest.approx(100 * expected["JI"], abs=1e-4)
    assert CrowdHumanMetrics()(ground_truth, detections, task="segm") == ({}, [])


def test_metrics_of_the_evaluator_say_when_there_is_no_person():
    images = [{"id": 1, "width": 10, "height": 10, "gt": [{"bbox": [0, 0, 5, 5], "ignore": 1}]}]
    _, notes = CrowdHumanMetrics()(coco_ground_truth(images), [])
    assert len(notes) == 1 and "no person" in notes[0]


def test_two_classes_are_refused():
    with pytest.raises(ValueError, match="one class.*dog"):
        CrowdHumanMetrics()(coco_ground_truth([], ("person", "dog")), [])


@pytest.mark.parametrize("floor", [-0.1, 1.0])
def test_floor_is_checked(floor):
    with pytest.raises(ValueError, match="miss_rate_floor"):
        CrowdHumanMetrics(miss_rate_floor=floor)


def random_crowd(seed):
    """A few images with overlapping people, ignore regions, boxes beyond the border, ties, images without either."""
    rng = np.random.default_rng(seed)
    images, detections = [], {}
    for k in range(5):
        count = int(rng.integers(0, 5))
        boxes = np.concatenate([rng.uniform(-5, 60, (count, 2)), rng.uniform(8, 40, (count, 2))], axis=1)
        images.append(image(boxes.tolist(), (rng.random(count) < 0.25).astype(int).tolist(), image_id=k))
        if k == 3:
            continue  # no detections
        near = boxes[rng.integers(0, count, 5)] + rng.normal(0, 3, (5, 4)) if count else np.zeros((0, 4))
        found = np.concatenate([near, [[5.0, 5.0, 20.0, 20.0]]])
        detections[k] = (found.tolist(), rng.random(len(found)).round(1).tolist())
    images.append(image([[10, 10, 20, 20]], image_id=5))  # at least one person
    return images, detections


@pytest.mark.parametrize("seed", range(40))
def test_equals_plain_loops(seed):
    images, detections = random_crowd(seed)
    got = evaluate_crowdhuman(images, detections)
    expected = reference.ap_mr_recall(images, detections)
    assert [got[key] for key in ("AP", "MR", "recall")] == pytest.approx(expected, abs=1e-12)
    for point in got["JI_curve"][::3]:
        wanted = reference.jaccard(images, detections, point["score_thr"])
        assert point["JI"] == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_number_of_boxes_and_scores_must_agree():
    with pytest.raises(ValueError, match="'a' has 1 detected boxes but 2 scores"):
        evaluate_crowdhuman([image([[0, 0, 10, 10]])], {"a": ([[0, 0, 10, 10]], [0.5, 0.6])})
