"""Annotation files that are wrong in every way: read alike by check, loader, mapper and evaluation, or refused by name.

400 inputs: 300 with one to three fields of a sound file replaced, left out or doubled, 100 with bytes changed.
"""

import json
import os
import tempfile
from collections import Counter

import numpy as np
import pycocotools.mask as mask_util
import pytest
from data.drawn import annotation, draw, sound
from detectron2.data import DatasetCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2_balanced.data.check_dataset import check_dataset
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.data.identity import dataset_identity
from d2_balanced.data.mapper import BalancedMapper
from d2_balanced.evaluation.coco_metrics import evaluate_coco
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.utils.errors import DataError

BOUNDED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
MAPPERS = [
    BalancedMapper(is_train=True, augmentations=[], image_format="BGR", **settings)
    for settings in ({}, {"use_instance_mask": True, "instance_mask_format": "bitmask"})
]
OUTCOMES = Counter()

SPECIAL = [
    "",
    "7",
    "07",
    "7.0",
    "8.jpg",
    "a\0b",
    "\ud800",
    "..\\8.jpg",
    [],
    {},
    [[]],
    [1, 2, 3, 4],
    [[1, 2, 3, 4]],
    10**400,
    -(10**20),
    [0, 0, 0, 0],
    [1e308, 1, 1e308, 1],
    [5, 5, -3, 4],
    [[1, 1, 9, 1, 9, 9], [2, 2]],
    [[1e9, 1, 9, 1, 9, 9]],
    [{"id": 7}],
    {"size": [40, 60], "counts": [2400]},
    {"size": [40, 60], "counts": [0, 2400]},
    {"size": [40.0, 60], "counts": "PP1"},
    {"size": [10**9, 10**9], "counts": [10**18]},
    {"counts": {}},
    [True] * 4,
    ["1", "2", "3", "4"],
    1e-9,
    0.5,
    3,
    5,
    7,
    8,
]
VALUES = st.one_of(
    st.sampled_from(SPECIAL), st.none(), st.booleans(), st.integers(-100, 100), st.floats(), st.text(max_size=3)
)
FIELDS = {
    "images": ["id", "file_name", "width", "height"],
    "categories": ["id", "name"],
    "annotations": ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "ignore", "keypoints"],
}
CHANGES = st.one_of(
    [
        st.tuples(
            st.just(kind), st.integers(0, 30), st.sampled_from(fields), st.sampled_from(["set", "set", "drop"]), VALUES
        )
        for kind, fields in FIELDS.items()
    ]
    + [
        st.tuples(
            st.sampled_from(list(FIELDS)),
            st.integers(0, 30),
            st.just(""),
            st.sampled_from(["record", "double", "remove", "list"]),
            VALUES,
        )
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    draw(folder)
    (folder / "temporary").mkdir()
    saved, tempfile.tempdir = tempfile.tempdir, str(folder / "temporary")
    yield folder
    tempfile.tempdir = saved


def changed(changes):
    content = sound()
    content["annotations"] += [annotation(k, 7 + k % 3, k % 40, k % 20, 10) for k in range(5, 25)]
    for kind, row, field, action, value in changes:
        records = content[kind] if isinstance(content.get(kind), list) and content[kind] else [{}]
        record = records[row % len(records)]
        if action == "set" and isinstance(record, dict):
            record[field] = value
        elif action == "drop" and isinstance(record, dict):
            record.pop(field, None)
        elif action == "double":
            records.append(record)
        elif action == "record":
            records[row % len(records)] = value
        elif action == "remove":
            records.remove(record)
        elif action == "list":
            content[kind] = value
    return content


@settings(max_examples=300, **BOUNDED)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def fields(folder, changes):
    read_alike_or_refused(folder, json.dumps(changed(changes)).encode())


@settings(max_examples=100, **BOUNDED)
@given(st.integers(0, 3000), st.binary(max_size=4), st.integers(0, 6), st.sampled_from(["", "cut", "utf-16", "bom"]))
def bytes_of_it(folder, place, inserted, removed, damage):
    data = json.dumps(sound()).encode()
    data = data[:place] + inserted + data[place + removed :]
    if damage:
        data = {"cut": data[:place], "utf-16": data.decode("latin1").encode("utf-16"), "bom": b"\xef\xbb\xbf" + data}[
            damage
        ]
    read_alike_or_refused(folder, data)


@pytest.mark.parametrize("inputs", [fields, bytes_of_it])
def test_every_file_is_read_alike_or_refused_by_name(folder, inputs):
    OUTCOMES.clear()
    inputs(folder)
    assert OUTCOMES["read"] >= 10 and OUTCOMES["refused"] >= 50, OUTCOMES


def read_alike_or_refused(folder, data):
    path = folder / "fuzzed.json"
    path.write_bytes(data)
    before = sorted(os.listdir(folder))
    report = check_dataset(str(path), str(folder))
    assert str(report).encode("utf-8") and str(path) in str(report)
    try:
        read(str(path), str(folder), report)
        assert not report.errors or all(
            "file" in e or "there is no object" in e or "no images" in e for e in report.errors
        ), report
        OUTCOMES["read"] += not report.errors
    except DataError as error:
        assert report.errors and str(path) in str(error) and len(str(error)) > len(str(path)) + 20, (report, error)
        assert str(error).encode("utf-8")
    OUTCOMES["refused"] += bool(report.errors)
    assert sorted(os.listdir(folder)) == before and not os.listdir(folder / "temporary")


def read(path, images, report):
    """What a run does with a data set; only ``DataError`` may come of it."""
    name = register_by_path("fuzzed", path, images, replace=True).name
    dicts, truth = DatasetCatalog.get(name), GroundTruth.from_catalog(name)
    assert dataset_identity(name).digest == (report.identity or dataset_identity(name)).digest
    assert sum(len(record["annotations"]) for record in dicts) == len(truth.annotations)
    if report.errors:
        return
    with_masks = not check_dataset(path, images, mask_format="bitmask", images="none").errors
    for record in dicts:
        for mapper in MAPPERS[: 1 + with_masks]:
            mapper(record)
    evaluate(truth, "bbox")
    if truth.annotations and all("segmentation" in a for a in truth.annotations):
        evaluate(truth, "segm")


def evaluate(truth, task):
    """The objects as detections, with both libraries: equal numbers."""
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for a in truth.annotations]
    if task == "segm":
        for detection, a in zip(found, truth.annotations):
            image, mask = truth.images[a["image_id"]], a["segmentation"]
            encoded = mask_util.frPyObjects(mask, image["height"], image["width"]) if isinstance(mask, list) else mask
            detection["segmentation"] = mask_util.merge(encoded) if isinstance(encoded, list) else encoded
            if isinstance(detection["segmentation"]["counts"], list):
                detection["segmentation"] = mask_util.frPyObjects(mask, *mask["size"])
    values = [
        list(evaluate_coco(truth, found, task, backend=b).summary().values())
        for b in ("faster-coco-eval", "pycocotools")
    ]
    np.testing.assert_allclose(*values, rtol=1e-12)
