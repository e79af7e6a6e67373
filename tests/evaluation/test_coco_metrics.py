"""Both back ends against pycocotools used directly, on random data with everything that COCO treats specially."""

import contextlib
import copy
import io

import numpy as np
import pytest
from d2_balanced.evaluation.coco_backend import resolve_backend
from d2_balanced.evaluation.coco_metrics import IOU_PERCENTS, detection_limits, evaluate_coco
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.evaluation.detections import internal_detections
from evaluation.coco_data import random_dataset, random_results
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Greatest difference to pycocotools used directly. It divides by (detections + machine epsilon) and so gets a precision
# of 1 - 2.2e-16 where the first detection is right; faster-coco-eval gets 1. Recall is equal bit for bit.
TOLERANCE = {"pycocotools": 0.0, "faster-coco-eval": np.finfo(np.float64).eps}
BACKENDS = list(TOLERANCE)
CASES = {  # seed, arguments of the data set, detections an image, max_dets
    "boxes": (0, {}, 20, 100),
    "crowded": (1, {"num_images": 3}, 450, 100),
    "300 detections": (2, {"num_images": 3, "num_classes": 2}, 450, 300),
    "few detections": (3, {}, 20, 5),
    "one class": (4, {"num_classes": 2}, 20, 100),
}


def oracle(coco, results, task, limits, use_categories=True, image_ids=None):
    """pycocotools as its authors use it: its own loading, its own ids."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        results = copy.deepcopy(results)
        if task == "segm":
            for result in results:
                result.pop("bbox")  # or it would take the box's area
        run = COCOeval(truth, truth.loadRes(results), task)
        run.params.maxDets = limits
        run.params.useCats = int(use_categories)
        if image_ids is not None:
            run.params.imgIds = image_ids
        run.evaluate()
        run.accumulate()
        if limits == [1, 10, 100]:
            run.summarize()
    return run


def ours(coco, results, task, **settings):
    ground_truth = GroundTruth(coco)
    return evaluate_coco(ground_truth, internal_detections(ground_truth, results).detections, task, **settings)


def assert_equal(metrics, expected, backend):
    np.testing.assert_array_equal(metrics.recall, expected.eval["recall"])
    assert np.abs(metrics.precision - expected.eval["precision"]).max() <= TOLERANCE[backend]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("use_categories", [True, False])
@pytest.mark.parametrize("case", sorted(CASES))
def test_precision_and_recall_equal_pycocotools(case, backend, use_categories):
    seed, settings, per_image, max_dets = CASES[case]
    coco = random_dataset(seed, **settings)
    results = random_results(seed, coco, per_image)
    expected = oracle(coco, results, "bbox", detection_limits(max_dets), use_categories)
    got = ours(coco, results, "bbox", max_dets=max_dets, backend=backend, use_categories=use_categories)
    assert_equal(got, expected, backend)
    assert 0.05 < np.mean(got.recall[got.recall > -1]) < 0.95  # a test on data where something happens


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_masks_equal_pycocotools(backend, seed):
    coco = random_dataset(seed, num_images=6, masks=True)
    results = random_results(seed, coco, 15, masks=True)
    expected = oracle(coco, results, "segm", [1, 10, 100])
    got = ours(coco, results, "segm", backend=backend)
    assert_equal(got, expected, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_summary_equals_pycocotools_summary(backend):
    coco = random_dataset(5)
    results = random_results(5, coco)
    stats = 100 * oracle(coco, results, "bbox", [1, 10, 100]).stats
    summary = ours(coco, results, "bbox", backend=backend).summary()
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100"]
    assert [summary[name] for name in names] == pytest.approx(list(stats), abs=1e-12)
    assert [key for key in summary if key[:2] == "AP" and key[2:].isdigit()] == [f"AP{p}" for p in IOU_PERCENTS]
    assert summary["AP"] == pytest.approx(np.mean([summary[f"AP{p}"] for p in IOU_PERCENTS]), abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_of_the_images(backend):
    coco = random_dataset(6)
    results = random_results(6, coco)
    chosen = [coco["images"][k]["id"] for k in (1, 4, 7)]
    expected = oracle(coco, results, "bbox", [1, 10, 100], image_ids=chosen)
    got = ours(coco, results, "bbox", backend=backend, image_indices=[1, 4, 7])
    assert_equal(got, expected, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_100_detections(backend):
    boxes = [[12.0 * (k % 12), 12.0 * (k // 12), 10.0, 10.0] for k in range(144)]
    coco = {"images": [{"id": 1, "width": 144, "height": 144}], "categories": [{"id": 1, "name": "grain"}]}
    common = {"image_id": 1, "category_id": 1}
    coco["annotations"] = [{"id": k + 1, "bbox": box, "area": 100.0, **common} for k, box in enumerate(boxes)]
    results = [{"bbox": box, "score": 1 - k / 200, **common} for k, box in enumerate(boxes)]
    at_100 = ours(coco, results, "bbox", max_dets=100, backend=backend).summary()
    at_300 = ours(coco, results, "bbox", max_dets=300, backend=backend).summary()
    assert at_100["AR@100"] == at_300["AR@100"] == pytest.approx(100 * 100 / 144)
    assert at_300["AR@300"] == at_300["AP"] == pytest.approx(100)
    assert at_100["AP"] == pytest.approx(100 * 70 / 101)  # recall points 0, .01 .. .69


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_give_zero_and_no_ground_truth_gives_nan(backend):
    coco = random_dataset(7)
    summary = ours(coco, [], "bbox", backend=backend).summary()
    assert set(summary.values()) == {0.0}
    without = {**coco, "annotations": []}
    summary = ours(without, random_results(7, coco), "bbox", backend=backend).summary()
    assert all(np.isnan(value) for value in summary.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_that_trap_cocos_code_do_not_change_the_metrics(backend):
    coco = random_dataset(8)
    results = random_results(8, coco)
    expected = ours(coco, results, "bbox", backend=backend).summary()
    strange = copy.deepcopy(coco)
    name = {image["id"]: f"image {k:03d}" for k, image in enumerate(coco["images"])}
    for image in strange["images"]:
        image["id"] = name[image["id"]]
    for annotation in strange["annotations"]:
        annotation["image_id"] = name[annotation["image_id"]]
        annotation["id"] = 0  # pycocotools takes a match with id 0 for none, and equal ids overwrite each other
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    renamed = [{**result, "image_id": name[result["image_id"]]} for result in results]
    assert ours(strange, renamed, "bbox", backend=backend).summary() == expected


def test_per_class_rows():
    coco = random_dataset(9)
    results = random_results(9, coco)
    expected = oracle(coco, results, "bbox", [1, 10, 100]).eval["precision"]
    ground_truth = GroundTruth(coco)
    metrics = ours(coco, results, "bbox")
    rows = metrics.per_class(ground_truth)
    assert [row["class"] for row in rows] == [c["name"] for c in coco["categories"]]
    assert rows[0]["AP"] == 100 * expected[:, :, 0, 0, -1].mean()
    assert rows[0]["AP90"] == 100 * expected[8, :, 0, 0, -1].mean()
    assert rows[-1]["objects"] == 0 and np.isnan(rows[-1]["AP"])
    assert sum(row["objects"] for row in rows) == sum(not a["iscrowd"] for a in coco["annotations"])


def test_the_order_of_the_results_file_does_not_matter_between_images():
    coco = random_dataset(10)
    results = random_results(10, coco)
    by_image = sorted(results, key=lambda result: -result["image_id"])
    first, second = ours(coco, results, "bbox"), ours(coco, by_image, "bbox")
    np.testing.assert_array_equal(first.precision, second.precision)


@pytest.mark.parametrize("max_dets, limits", [(1, [1]), (10, [1, 10]), (50, [1, 10, 50]), (100, [1, 10, 100]),
                                              (300, [1, 10, 100, 300])])  # fmt: skip
def test_detection_limits(max_dets, limits):
    assert detection_limits(max_dets) == limits


def test_backend_names():
    with pytest.raises(ValueError, match="backend must be one of.*'cocoapi'"):
        resolve_backend("cocoapi")
    assert resolve_backend("pycocotools") == "pycocotools"
    assert resolve_backend("auto") in BACKENDS
