"""Own data by path: registration, agreement of the splits, and what is said when something is missing."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from d2_balanced.data.coco_paths import read_categories, register_by_path, register_train_val
from d2_balanced.utils.errors import DataError

CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}]


@pytest.fixture
def folder(tmp_path):
    """Two annotation files over one image, and no data set of these names before and after."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(str(tmp_path / "images" / "a.png"))
    for name in ("train", "val"):
        write(tmp_path / f"{name}.json")
    yield tmp_path
    for name in ("own_train", "own_val", "by_path"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def write(path, categories=CATEGORIES):
    annotation = {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
                                "annotations": [annotation], "categories": categories}))


def paths(folder, split="train"):
    return str(folder / f"{split}.json"), str(folder / "images")


def test_registers_names_and_classes_in_the_order_of_their_ids(folder):
    dataset = register_by_path("by_path", *paths(folder))
    assert (dataset.class_names, dataset.num_classes, dataset.categories) == (["cat", "dog"], 2, {2: "cat", 9: "dog"})
    metadata = MetadataCatalog.get("by_path")
    assert metadata.thing_classes == ["cat", "dog"] and metadata.evaluator_type == "coco"
    record, = DatasetCatalog.get("by_path")
    assert record["annotations"][0]["category_id"] == 1 and record["file_name"] == str(folder / "images" / "a.png")


def test_same_paths_again_are_fine_and_others_are_not(folder, monkeypatch):
    register_by_path("by_path", *paths(folder))
    monkeypatch.chdir(folder)
    register_by_path("by_path", "train.json", "images")  # the same, written differently
    with pytest.raises(DataError, match="'by_path' is registered already, for .*train.json.*val.json"):
        register_by_path("by_path", *paths(folder, "val"))
    register_by_path("by_path", *paths(folder, "val"), replace=True)
    assert MetadataCatalog.get("by_path").json_file == str(folder / "val.json")


def test_train_and_val(folder):
    train, val = register_train_val(*paths(folder), *paths(folder, "val"))
    assert (train.name, val.name) == ("own_train", "own_val")
    assert len(DatasetCatalog.get("own_val")) == 1
    write(folder / "train.json", CATEGORIES[:1])  # another run in the same process: the names are taken over
    write(folder / "val.json", CATEGORIES[:1])
    train, val = register_train_val(*paths(folder), *paths(folder, "val"))
    assert MetadataCatalog.get("own_train").thing_classes == ["dog"]


def test_one_split_or_none(folder):
    assert register_train_val("", "", "", "") == (None, None)
    train, val = register_train_val(None, None, *paths(folder, "val"))
    assert train is None and val.class_names == ["cat", "dog"]


@pytest.mark.parametrize("categories, names", [
    (CATEGORIES[:1], None),
    ([{"id": 9, "name": "dog"}, {"id": 2, "name": "Cat"}], ["Cat", "dog"]),
    ([{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}], ["cat", "dog"]),
])
def test_splits_may_have_other_categories_with_a_name_in_common(folder, categories, names):
    """They are matched by name in the evaluation."""
    write(folder / "val.json", categories)
    _, val = register_train_val(*paths(folder), *paths(folder, "val"))
    assert val.class_names == (names or [categories[0]["name"]])


def test_splits_without_a_common_name_are_refused(folder):
    write(folder / "val.json", [{"id": 9, "name": "DOG"}, {"id": 2, "name": "CAT"}])
    with pytest.raises(DataError) as info:
        register_train_val(*paths(folder), *paths(folder, "val"))
    assert "id 2: 'cat' in training, 'CAT' in validation" in str(info.value) and "val.json" in str(info.value)


def test_half_a_pair_of_paths(folder):
    with pytest.raises(DataError, match="--val-json needs --val-images.*DATASETS.VAL_JSON, DATASETS.VAL_IMAGES"):
        register_train_val(*paths(folder), str(folder / "val.json"), "")
    with pytest.raises(DataError, match="--train-images needs --train-json"):
        register_train_val("", str(folder))


def test_missing_paths(folder):
    with pytest.raises(DataError, match="annotation file .*no.json does not exist"):
        register_by_path("by_path", str(folder / "no.json"), str(folder / "images"))
    with pytest.raises(DataError, match="image folder .*nothing .*train.json.* does not exist"):
        register_by_path("by_path", str(folder / "train.json"), str(folder / "nothing"))
    with pytest.raises(DataError, match="annotation file .*images is a folder, not a file"):
        register_by_path("by_path", str(folder / "images"), str(folder / "train.json"))
    with pytest.raises(DataError, match="image folder .*train.json.* is a file, not a folder"):
        register_by_path("by_path", str(folder / "train.json"), str(folder / "train.json"))
    assert "by_path" not in DatasetCatalog


@pytest.mark.parametrize("categories, text", [
    ([], "nothing to detect"), ([{"id": 1}], "record.* without 'name': categories"),
    ([{"id": "a", "name": "b"}], "ids must be integers: 'a'"), ([{"id": 1, "name": None}], "without 'name'"),
    ([{"id": 1, "name": " "}], "must be text: ' ' of id 1"),
    ([{"id": 1, "name": ["a"]}], r"must be text: \['a'\] of id 1"),
    ([{"id": 1, "name": "\ud800"}], "must be text"), ([{"id": True, "name": "b"}], "ids must be integers: True"),
    (CATEGORIES + [{"id": 2, "name": "cow"}], r"duplicate category id\(s\): 2 \(2 times\)"),
])
def test_unusable_categories(folder, categories, text):
    write(folder / "train.json", categories)
    with pytest.raises(DataError, match=text):
        read_categories(str(folder / "train.json"))
