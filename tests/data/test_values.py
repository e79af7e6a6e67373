"""Values that are legal and rarely meant: crowds, areas; what the evaluation makes of areas."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from data.drawn import SOUND, annotation, draw, sound, write

from d2_balanced.data.check_dataset import check_dataset
from d2_balanced.evaluation.coco_metrics import evaluate_coco
from d2_balanced.evaluation.detections import internal_detections
from d2_balanced.evaluation.ground_truth import GroundTruth


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return folder


def crowds(content, rows, encoded=False):
    for a in (content["annotations"][row] for row in rows):
        a["iscrowd"] = 1
        if encoded:
            x, y, side, _ = a["bbox"]
            mask = np.zeros((40, 60), np.uint8, order="F")
            mask[y : y + side, x : x + side] = 1
            a["segmentation"] = {**mask_util.encode(mask), "counts": mask_util.encode(mask)["counts"].decode()}
    return content


@pytest.mark.parametrize(
    "rows, encoded, words",
    [
        (
            [0, 1],
            True,
            ["2 of 4 annotations are marked as crowds (iscrowd 1):", "2 of them are run-length", "CVAT", "background"],
        ),
        ([1, 3], False, ["2 of 4", "; of dog there is nothing else", "0 of them are run-length", "Set iscrowd to 0"]),
    ],
)
def test_objects_marked_as_crowds(folder, rows, encoded, words):
    report = check_dataset(write(folder, crowds(sound(), rows, encoded)), str(folder))
    (warning,) = [message for message in report.warnings if "iscrowd" in message]
    assert report.errors == [] and all(word in warning for word in words)


def test_all_objects_marked_as_crowds(folder):
    report = check_dataset(write(folder, crowds(sound(), range(4), True)), str(folder))
    assert report.errors == ["there is no object in any image (crowd regions do not count)"]
    assert any("4 of 4 annotations are marked as crowds" in message for message in report.warnings)


def test_crowds_as_in_coco_are_no_matter(folder):
    content = sound()
    content["annotations"] = [annotation(k, 7 + k % 3, k % 40, k % 20, 10) for k in range(1, 41)]
    assert (
        check_dataset(write(folder, crowds(content, [0, 1, 2, 3])), str(folder), images="none")
        .warnings[0]
        .startswith("1 c")
    )
    content["annotations"][4]["iscrowd"] = 1
    assert any("5 of 40" in m for m in check_dataset(write(folder, content), str(folder), images="none").warnings)
    report = check_dataset(write(folder, content), str(folder), images="none", crowds_are_meant=True)
    assert not any("iscrowd" in message for message in report.warnings)


@pytest.mark.parametrize("area", [None, "400", float("nan"), float("inf"), 0, -3, [400], True, "absent"])
@pytest.mark.parametrize("mask", ["polygon", "rle", "counts", "none"])
def test_area_is_that_of_the_mask_or_box_where_it_is_no_positive_number(folder, area, mask):
    content = sound()
    a = content["annotations"][1]
    a.update(area=area, bbox=[30, 10, 20, 16], segmentation=[[30, 10, 50, 10, 30, 26]])
    if area == "absent":
        del a["area"]
    expected = float(mask_util.area(mask_util.merge(mask_util.frPyObjects(a["segmentation"], 40, 60))))
    if mask == "none":
        a["segmentation"], expected = [], 20 * 16
    elif mask != "polygon":
        encoded = mask_util.merge(mask_util.frPyObjects(a["segmentation"], 40, 60))
        pixels = mask_util.decode(encoded).flatten(order="F")
        runs = np.diff(np.flatnonzero(np.diff(np.r_[1 - pixels[0], pixels, 2]))).tolist()
        counts = [0] * int(pixels[0]) + runs if mask == "counts" else encoded["counts"].decode()
        a["segmentation"] = {"size": [40, 60], "counts": counts}
    path = write(folder, content)
    assert GroundTruth.from_file(path).annotations[1]["area"] == expected
    report = check_dataset(path, str(folder))
    assert report.errors == [] and any("whose 'area' is no positive number" in message for message in report.warnings)


def test_size_ranges_do_not_depend_on_how_area_is_missing(folder):
    """AP by size of the same detections, with the area left out in every way."""
    content = sound()
    content["annotations"] = [annotation(1, 7, 2, 2, 36), annotation(2, 8, 5, 6, 10, 5), annotation(3, 9, 1, 1, 34)]
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"][:2]
    ]
    metrics = []
    for area in (None, "7", float("nan"), 0, "right"):
        for a in content["annotations"]:
            a["area"] = a["bbox"][2] ** 2 if area == "right" else area
        truth = GroundTruth.from_file(write(folder, content))
        found = internal_detections(truth, results).detections
        metrics += [
            evaluate_coco(truth, found, backend=backend).summary() for backend in ("faster-coco-eval", "pycocotools")
        ]
    for other in metrics[1:]:
        np.testing.assert_allclose(list(other.values()), list(metrics[0].values()), rtol=1e-12)
    assert metrics[0]["APs"] == 100 and 45 < metrics[0]["APm"] < 55 and np.isnan(metrics[0]["APl"])


STRAY = [[1, 1, 3, 3]], [[1, 1, 3]], [[1, 1, 3, 3], [4, 5]], [[]], [[1, 2, 3, 4, 5, float("nan")]], ["x"], [3]


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("order", [1, -1])
def test_both_libraries_agree_on_stray_polygons(stray, order):
    content = sound()
    good = content["annotations"][1]["segmentation"]
    content["annotations"][1]["segmentation"] = (stray + good)[::order]
    truth = GroundTruth(content)
    results = []
    for a in SOUND["annotations"]:
        encoded = mask_util.merge(mask_util.frPyObjects(a["segmentation"], 40, 60))
        results.append(
            {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9, "segmentation": encoded}
        )
    found = internal_detections(truth, results).detections
    values = [
        evaluate_coco(truth, found, "segm", backend=b).summary()["AP"] for b in ("faster-coco-eval", "pycocotools")
    ]
    np.testing.assert_allclose(values, 100, rtol=1e-12)
