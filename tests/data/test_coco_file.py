"""One reading: how a file is written may differ, what the check, the loader and the evaluation get does not."""

import json

import pytest
from data.drawn import SOUND, draw, sound, write
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json

from d2_balanced.data.check_dataset import check_dataset, check_registered
from d2_balanced.data.coco_file import load_dicts, read_content
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.evaluation.detections import internal_detections, load_results
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.utils.errors import DataError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return str(folder)


def read_in_every_way(path, images, name="read_in_every_way"):
    """(report of the check, detectron2's dicts, ground truth of the evaluation)."""
    dataset = register_by_path(name, path, images, replace=True)
    return check_dataset(path, images, 2), DatasetCatalog.get(dataset.name), GroundTruth.from_catalog(dataset.name)


def loaded_by_detectron2(images, tmp_path, name="as_detectron2_loads"):
    return load_coco_json(write(tmp_path, SOUND, "plain.json"), images, name)


def texts(content):
    for image in content["images"]:
        image.update(id=str(image["id"]), width="60", height=40.0)
    for a in content["annotations"]:
        a.update(image_id=str(a["image_id"]), category_id=str(a["category_id"]), id=str(a["id"]), iscrowd="0")
    for category in content["categories"]:
        category["id"] = str(category["id"])


def floats(content):
    for image in content["images"]:
        image["id"] = float(image["id"])
    for a in content["annotations"]:
        a.update(image_id=float(a["image_id"]), category_id=float(a["category_id"]), iscrowd=False)


def references(content):
    """The annotations write ids otherwise than the images and categories."""
    for a in content["annotations"]:
        a.update(image_id=str(a["image_id"]), category_id=float(a["category_id"]), iscrowd=None)


def empty_fields(content):
    for a in content["annotations"]:
        a.update(ignore=None, keypoints="none", area="large")


@pytest.mark.parametrize("change", [lambda content: None, floats, references, empty_fields])
def test_the_same_content_written_otherwise(images, tmp_path, change):
    content = sound()
    change(content)
    report, dicts, truth = read_in_every_way(write(tmp_path, content), images)
    assert report.errors == []
    assert dicts == loaded_by_detectron2(images, tmp_path)
    expected = GroundTruth(SOUND)
    assert truth.annotations == expected.annotations
    assert (truth.image_ids, truth.category_ids) == ([7, 8, 9], [3, 5])
    assert all(type(record[key]) is int for record in dicts for key in ("image_id", "width", "height"))


def test_ids_of_images_may_be_text_everywhere(images, tmp_path):
    content = sound()
    texts(content)
    report, dicts, truth = read_in_every_way(write(tmp_path, content), images)
    assert report.errors == [] and [record["image_id"] for record in dicts] == ["7", "8", "9"]
    expected = loaded_by_detectron2(images, tmp_path)
    assert [record["annotations"] for record in dicts] == [record["annotations"] for record in expected]
    assert MetadataCatalog.get("read_in_every_way").thing_dataset_id_to_contiguous_id == {3: 0, 5: 1}
    assert truth.annotations[1]["image_id"] == 0 and truth.annotations[1]["category_id"] == 1


@pytest.mark.parametrize(
    "ids, text",
    [
        ((7, "x", 9), "image ids are numbers in some records and text in others: 'x'"),
        ((7, 8.5, 9), "1 image id(s) that are neither whole numbers nor text: 8.5"),
        ((7, True, 9), "1 image id(s) that are neither whole numbers nor text: True"),
        ((7, [8], 9), "1 image id(s) that are neither whole numbers nor text: [8]"),
        ((7, float("nan"), 9), "1 image id(s) that are neither whole numbers nor text: nan"),
        ((7, "7", 9), "1 duplicate image id(s): 7 (2 times)"),
        ((7, None, 9), "1 image record(s) without 'id': images[1]"),
    ],
)
def test_ids_that_have_no_one_meaning(images, tmp_path, ids, text):
    content = sound()
    for image, image_id in zip(content["images"], ids):
        image["id"] = image_id
    path = write(tmp_path, content)
    assert any(text in message for message in check_dataset(path, images).errors)
    for reading in (lambda: load_dicts(path, images, "never"), lambda: GroundTruth.from_file(path)):
        with pytest.raises(DataError) as error:
            reading()
        assert text in str(error.value) and path in str(error.value)


ENCODINGS = {
    "utf-8-sig": None,
    "utf-16": "is encoded in UTF-16",
    "utf-16-be": "is encoded in UTF-16-BE",
    "utf-32": "is encoded in UTF-32",
    "cp1252": "not encoded in UTF-8: byte 0xfc at position",
    "shift_jis": "not encoded in UTF-8",
    "gb18030": "not encoded in UTF-8",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(images, tmp_path, encoding):
    content, text = sound(), ENCODINGS[encoding]
    name = "scheibe-ü" if encoding in ("utf-8-sig", "cp1252") else "円盤"
    content["categories"][0]["name"] = name
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    if text is None:
        report, dicts, truth = read_in_every_way(str(path), images)
        assert report.errors == [] and "byte order mark" in report.repairs[0] and len(dicts) == 3
        assert truth.class_names == MetadataCatalog.get("read_in_every_way").thing_classes == [name, "dog"]
        return
    assert (
        text in check_dataset(str(path), images).errors[0] and str(path) in check_dataset(str(path), images).errors[0]
    )
    for reading in (register_by_path, lambda _, *paths: GroundTruth.from_file(paths[0])):
        with pytest.raises(DataError, match="a.json"):
            reading("never", str(path), images)


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            '{"images": [], "categories": [{"id": 1, "id": 2, "name": "a"}]}',
            "has the key 'id' twice in the record with",
        ),
        ('{"images": [], "categories": [], "annotations": [{"id": 7, "bbox": [1], "bbox": [2]}]}', "{'id': 7}"),
        ('{"annotations": [], "images": [], "categories": [], "annotations": [{}]}', "the key 'annotations' twice"),
        ('{"images": [' + "[" * 100_000, "nested too deeply"),
        ("", "is not a JSON file"),
        ('{"images": []', "is not a JSON file"),
        ("[]", "not in COCO format"),
        ("5", "(the file holds a int"),
        ('{"images": {}, "categories": []}', "no list of records under ['images']"),
        ('{"images": [], "categories": [], "annotations": null}', "no list of records under ['annotations']"),
    ],
)
def test_what_is_no_coco_file(tmp_path, images, text, expected):
    path = tmp_path / "a.json"
    path.write_text(text)
    report = check_dataset(str(path), images)
    assert len(report.errors) == 1 and expected in report.errors[0] and str(path) in report.errors[0]
    with pytest.raises(DataError):
        GroundTruth.from_file(str(path))


def test_a_key_twice_with_one_value_is_harmless(tmp_path, images):
    text = json.dumps(SOUND).replace('"iscrowd": 0', '"iscrowd": 0, "iscrowd": 0')
    (tmp_path / "a.json").write_text(text)
    assert read_in_every_way(str(tmp_path / "a.json"), images)[1] == loaded_by_detectron2(images, tmp_path)


def test_names_that_are_numbers(images, tmp_path):
    content = sound()
    content["categories"][0]["name"], content["categories"][1]["name"] = 0, 1.5
    report, dicts, truth = read_in_every_way(write(tmp_path, content), images)
    assert report.errors == [] and len(dicts) == 3
    assert truth.class_names == MetadataCatalog.get("read_in_every_way").thing_classes == ["0", "1.5"]


def test_stray_polygons_are_the_same_for_all(images, tmp_path):
    content = sound()
    good = content["annotations"][1]["segmentation"]
    content["annotations"][1]["segmentation"] = [[1, 1, 3, 3], *good, [1, 1, 3], [1, 2, 3, 4, 5, float("nan")]]
    report, dicts, truth = read_in_every_way(write(tmp_path, content), images)
    assert report.errors == [] and dicts[0]["annotations"][1]["segmentation"] == good
    assert "1 annotation(s) with stray polygons" in report.warnings[0] and "annotation 2" in report.warnings[0]
    assert truth.annotations[1]["segmentation"] == good


def test_a_training_file_without_annotations(images, tmp_path):
    content = sound()
    content["annotation"] = content.pop("annotations")
    path = write(tmp_path, content)
    dataset = register_by_path("without_annotations", path, images, replace=True)
    report = check_registered(dataset.name, 2, trained=True)
    assert report.errors == [
        "there is no list of 'annotations', so there is nothing to train on. "
        "It is the file of a test set, or the key is called otherwise."
    ]
    assert check_registered(dataset.name, 2).errors == [] and not GroundTruth.from_file(path).has_annotations


def test_a_function_of_others_that_reads_the_file_is_not_trusted_with_repairs(images, tmp_path):
    content = sound()
    references(content)
    path = write(tmp_path, content)
    DatasetCatalog.register("of_others", lambda: load_coco_json(path, images, "of_others"))
    MetadataCatalog.get("of_others").set(json_file=path, image_root=images, evaluator_type="coco")
    try:
        errors = check_registered("of_others", 2).errors
        assert len(errors) == 1 and "read otherwise than it is written ('image_id', " in errors[0]
        assert "register_by_path" in errors[0]
        write(tmp_path, SOUND)
        assert check_registered("of_others", 2).errors == []
    finally:
        DatasetCatalog.remove("of_others")
        MetadataCatalog.remove("of_others")


def test_a_file_that_changes_is_read_anew(images, tmp_path):
    path = write(tmp_path, SOUND)
    dataset = register_by_path("changing", path, images, replace=True)
    assert len(DatasetCatalog.get(dataset.name)[0]["annotations"]) == 2
    content = sound()
    references(content)
    content["annotations"].pop(0)
    write(tmp_path, content)
    assert len(DatasetCatalog.get(dataset.name)[0]["annotations"]) == 1
    write(tmp_path, {**content, "images": []})
    with pytest.raises(DataError, match="does not list"):
        DatasetCatalog.get(dataset.name)


def test_results_are_matched_by_the_same_ids(tmp_path):
    result = {"image_id": "7", "category_id": 5.0, "score": 0.5, "bbox": [30, 10, 20, 20]}
    (tmp_path / "results.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps([result, {**result, "image_id": [1]}]).encode()
    )
    found = internal_detections(GroundTruth(SOUND), load_results(str(tmp_path / "results.json")))
    assert [(d["image_id"], d["category_id"]) for d in found.detections] == [(0, 1)]
    assert sum(found.unknown_images.values()) == 1
    for fault in ({"score": "high"}, {"bbox": [1, 2, 3]}, {"bbox": "1 2 3 4"}, {"score": float("nan")}):
        (tmp_path / "results.json").write_text(json.dumps([result, {**result, **fault}]))
        with pytest.raises(DataError, match=f"detection number 1: its {next(iter(fault))} is"):
            load_results(str(tmp_path / "results.json"))


def test_reading_changes_nothing_in_a_sound_file(tmp_path, images):
    assert read_content(write(tmp_path, SOUND), images) == SOUND
