"""The identity of a data set: what changes it, what does not; and classes of one data set among those of another."""

import json

import pytest
import torch
from data.drawn import draw, sound, write
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_balanced.data import identity as identity_module
from d2_balanced.data.check_dataset import check_dataset, check_registered
from d2_balanced.data.class_names import distinct_names
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.data.identity import DatasetIdentity, dataset_identity, match_classes
from d2_balanced.utils.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return folder


def identity(folder, content, **formatting):
    path = write(folder, content, **formatting)
    return dataset_identity(register_by_path("identified", path, str(folder), replace=True).name)


def test_what_it_says(folder):
    found = identity(folder, sound())
    assert found == DatasetIdentity("identified", ((3, "cat"), (5, "dog")), 3, 4, found.digest, str(folder))
    assert len(found.digest) == 64
    torch.save(found._asdict(), folder / "identity.pth")
    assert torch.load(folder / "identity.pth", weights_only=True) == found._asdict()


def reverse_keys(value):
    if isinstance(value, dict):
        return {key: reverse_keys(value[key]) for key in reversed(list(value))}
    return [reverse_keys(item) for item in value] if isinstance(value, list) else value


def as_floats(content):
    for a in content["annotations"]:
        a.update(bbox=[float(v) for v in a["bbox"]], area=float(a["area"]), image_id=float(a["image_id"]), extra="note")
    content["info"] = {"date": "today"}
    content["images"].reverse()
    content["categories"].reverse()
    return content


@pytest.mark.parametrize("written", ["indented", "reversed", "floats", "ascii"])
def test_formatting_and_order_of_keys_do_not_change_it(folder, written):
    content = sound()
    content["categories"][0]["name"] = "küken"
    expected = identity(folder, content)
    if written == "indented":
        found = identity(folder, content, indent=3)
    elif written == "ascii":
        found = identity(folder, content, ensure_ascii=False)
    else:
        found = identity(
            folder, reverse_keys(content) if written == "reversed" else as_floats(json.loads(json.dumps(content)))
        )
    assert found == expected


CHANGES = {
    "box": lambda c: c["annotations"][1].update(bbox=[30, 10, 20, 19]),
    "class": lambda c: c["annotations"][1].update(category_id=3),
    "name": lambda c: c["categories"][1].update(name="hound"),
    "crowd": lambda c: c["annotations"][1].update(iscrowd=1),
    "area": lambda c: c["annotations"][1].update(area=399),
    "mask": lambda c: c["annotations"][1].update(segmentation=[[30, 10, 50, 10, 50, 29]]),
    "no mask": lambda c: c["annotations"][1].pop("segmentation"),
    "object": lambda c: c["annotations"].pop(1),
    "order of objects": lambda c: c["annotations"].insert(0, c["annotations"].pop(1)),
    "image": lambda c: c["images"][0].update(file_name="9.jpg"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_trained_on_changes_it(folder, change):
    content, before = sound(), identity(folder, sound())
    CHANGES[change](content)
    assert identity(folder, content).digest != before.digest


def test_broken_boxes_that_are_left_out_do_not_count(folder):
    content = sound()
    content["annotations"].append({**content["annotations"][0], "id": 9, "bbox": [1, 1, 0, 5]})
    assert identity(folder, content) == identity(folder, sound())


def test_a_data_set_without_a_file(folder):
    dataset = register_by_path("identified", write(folder, sound()), str(folder), replace=True)
    dicts = DatasetCatalog.get(dataset.name)
    DatasetCatalog.register("identified_dicts", lambda: dicts)
    MetadataCatalog.get("identified_dicts").set(thing_classes=["cat", "dog"])
    try:
        found = dataset_identity("identified_dicts")
        assert found.classes == ((0, "cat"), (1, "dog")) and (found.images, found.annotations) == (3, 4)
        assert found.image_root == str(folder)
        dicts[0]["annotations"].pop()
        assert dataset_identity("identified_dicts").digest != found.digest
    finally:
        DatasetCatalog.remove("identified_dicts")
        MetadataCatalog.remove("identified_dicts")


def test_a_data_set_that_was_checked_is_not_read_again(folder, monkeypatch):
    dataset = register_by_path("identified", write(folder, sound(), "checked.json"), str(folder), replace=True)
    report = check_registered(dataset.name, 2)
    monkeypatch.setattr(identity_module, "read_coco", None)  # would fail if it were called
    assert dataset_identity(dataset.name) == report.identity._replace(name=dataset.name)
    content = sound()
    content["annotations"].append({**content["annotations"][0], "image_id": 77})
    assert check_dataset(write(folder, content), str(folder)).identity is None


def test_errors(folder):
    with pytest.raises(DataError, match="there is no registered data set 'nobody'"):
        dataset_identity("nobody")
    path = write(folder, sound())
    register_by_path("identified", path, str(folder), replace=True)
    (folder / "a.json").write_text("{}")
    with pytest.raises(DataError, match="a.json"):
        dataset_identity("identified")


OWN = ((1, "disc"), (2, "square"), (5, "bar"))


@pytest.mark.parametrize(
    "other, indices, missing, new, doubles",
    [
        (OWN, (0, 1, 2), (), (), ()),
        (((7, "bar"), (8, "disc"), (9, "square")), (2, 0, 1), (), (), ()),
        (((1, "disc"), (3, "bar")), (0, 2), ("square",), (), ()),
        (((1, "disc"), (2, "circle"), (5, "bar"), (6, "rod")), (0, None, 2, None), ("square",), ("circle", "rod"), ()),
        (((1, "bar"), (2, "bar")), (2, None), ("disc", "square"), ("bar",), ("bar",)),
        ((), (), ("disc", "square", "bar"), (), ()),
    ],
)
def test_classes_are_matched_by_name(other, indices, missing, new, doubles):
    match = match_classes(OWN, other)
    assert match == (indices, missing, new, doubles)
    assert match.is_same == (other == OWN)


def test_classes_of_one_name_are_matched_by_id_and_then_by_order():
    fish = ((1, "fish"), (2, "fish"), (3, "crab"))
    assert match_classes(fish, ((2, "fish"), (1, "fish"))).indices == (1, 0)
    assert match_classes(fish, ((8, "fish"), (9, "fish"))).indices == (0, 1)
    assert match_classes(fish, ((9, "fish"), (1, "fish"))).indices == (1, 0)
    assert match_classes(fish, [[1, "fish"], [2, "fish"], [3, "crab"]]).is_same  # as JSON has them


def test_distinct_names():
    assert distinct_names(["a", "b"], [1, 2]) == ["a", "b"]
    assert distinct_names(["fish", "crab", "fish"], [1, 2, 7]) == ["fish (id 1)", "crab", "fish (id 7)"]
    assert len(set(distinct_names(["fish", "fish", "fish (id 1)", "fish (id 1)"], [1, 2, 3, 4]))) == 4
