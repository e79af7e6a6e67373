"""Average recall of proposals against pycocotools, in one go and in chunks."""

import copy
import math

import numpy as np
import pytest
from d2_balanced.evaluation import proposal_recall as module
from d2_balanced.evaluation.coco_metrics import percent
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.evaluation.proposal_recall import proposal_recall
from evaluation.coco_data import random_dataset, random_results
from evaluation.test_coco_metrics import oracle

LIMITS = [100, 300, 1000]


def data(seed):
    coco = random_dataset(seed, num_images=7)
    results = random_results(seed, coco, 350)
    return coco, [{**result, "category_id": 10} for result in results]


def as_proposals(ground_truth, results):
    proposals = {}
    for result in results:
        x, y, w, h = result["bbox"]
        boxes, scores = proposals.setdefault(ground_truth.image_index[result["image_id"]], ([], []))
        boxes.append([x, y, x + w, y + h])
        scores.append(result["score"])
    return {image: (np.array(boxes), np.array(scores)) for image, (boxes, scores) in proposals.items()}


@pytest.mark.parametrize("images_at_once", [256, 3])
@pytest.mark.parametrize("backend", ["pycocotools", "faster-coco-eval"])
def test_equals_pycocotools(backend, images_at_once, monkeypatch):
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", images_at_once)
    coco, results = data(0)
    ground_truth = GroundTruth(coco)
    got = proposal_recall(ground_truth, as_proposals(ground_truth, results), backend=backend)
    recall = oracle(coco, results, "bbox", LIMITS, use_categories=False).eval["recall"]
    expected = {
        f"AR{suffix}@{limit}": percent(recall[:, 0, area, m])
        for m, limit in enumerate(LIMITS)
        for area, suffix in enumerate(["", "s", "m", "l"])
    }
    assert got == pytest.approx(expected, abs=1e-9)
    assert 10 < got["AR@100"] < got["AR@300"] < 100


def test_objects_of_images_without_proposals_count_as_missed():
    coco, results = data(1)
    ground_truth = GroundTruth(coco)
    proposals = as_proposals(ground_truth, results)
    full = proposal_recall(ground_truth, proposals)
    assert proposal_recall(ground_truth, {0: (np.zeros((0, 4)), np.zeros(0))})["AR@1000"] == 0
    del proposals[1]
    assert proposal_recall(ground_truth, proposals)["AR@1000"] < full["AR@1000"]


def test_no_objects_give_nan():
    coco = copy.deepcopy(random_dataset(2))
    coco["annotations"] = []
    assert all(math.isnan(value) for value in proposal_recall(GroundTruth(coco), {}).values())
