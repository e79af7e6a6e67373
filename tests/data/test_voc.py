"""VOC in COCO format: boxes as detectron2 reads them, difficult objects, caching, and clear errors."""

import json
import os

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from d2_balanced.data import builtin, voc
from d2_balanced.data.check_dataset import check_dataset
from d2_balanced.utils.errors import DataError

OBJECT = ("<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
          "<ymax>{}</ymax></bndbox></object>")
OBJECTS = [("dog", 0, 1, 1, 60, 40), ("cat", 1, 11, 6, 30, 25), ("person", 0, 5, 5, 5, 9)]


def write_year(root, year, lists):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        os.makedirs(os.path.join(root, year, folder))
    for image_list, voc_ids in lists.items():
        with open(os.path.join(root, year, "ImageSets", "Main", image_list + ".txt"), "w") as f:
            f.write("\n".join(voc_ids) + "\n")
        for voc_id in voc_ids:
            Image.new("RGB", (60, 40)).save(os.path.join(root, year, "JPEGImages", voc_id + ".jpg"))
            with open(os.path.join(root, year, "Annotations", voc_id + ".xml"), "w") as f:
                f.write("<annotation><size><width>60</width><height>40</height><depth>3</depth></size>"
                        + "".join(OBJECT.format(*o) for o in OBJECTS) + "</annotation>")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    write_year(str(tmp_path), "VOC2007", {"trainval": ["000012", "000017"], "test": ["000001"]})
    write_year(str(tmp_path), "VOC2012", {"trainval": ["2008_000002"]})
    return str(tmp_path)


def read(path):
    with open(path) as f:
        return json.load(f)


def test_boxes_are_those_of_detectron2(root, monkeypatch):
    monkeypatch.setattr(np, "str", str, raising=False)  # detectron2 0.6's VOC loader needs it
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    theirs = load_voc_instances(os.path.join(root, "VOC2007"), "trainval", CLASS_NAMES)
    ours = read(voc.ensure_voc_json("voc_2007_trainval_coco", root))
    assert [c["name"] for c in ours["categories"]] == list(CLASS_NAMES)
    for image, record in zip(ours["images"], theirs):
        annotations = [a for a in ours["annotations"] if a["image_id"] == image["id"]]
        assert os.path.join(root, image["file_name"]) == record["file_name"]
        assert (image["width"], image["height"]) == (record["width"], record["height"])
        for a, b in zip(annotations, record["annotations"]):
            assert a["category_id"] - 1 == b["category_id"]
            assert BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == b["bbox"]
    assert ours["annotations"][0]["bbox"] == [0, 0, 60, 40]  # the whole image
    assert ours["annotations"][2]["bbox"] == [4, 4, 1, 5]  # one pixel wide


def test_difficult_objects_count_in_training_and_are_ignored_in_evaluation(root):
    train = read(voc.ensure_voc_json("voc_0712_trainval_coco", root))
    test = read(voc.ensure_voc_json("voc_2007_test_coco", root))
    assert [a["iscrowd"] for a in train["annotations"]] == [0, 0, 0] * 3
    assert [a["iscrowd"] for a in test["annotations"]] == [0, 1, 0]
    assert [image["file_name"].split("/")[0] for image in train["images"]] == ["VOC2007", "VOC2007", "VOC2012"]


@pytest.mark.parametrize("name", voc.VOC_SPLITS)
def test_converted_files_pass_the_check(root, name):
    report = check_dataset(voc.ensure_voc_json(name, root), voc.voc_image_root(root), 20)
    assert report.errors == []


def test_devkit_folder(root, tmp_path):
    (tmp_path / "data").mkdir()
    for year in ("VOC2007", "VOC2012"):
        os.renames(os.path.join(root, year), str(tmp_path / "data" / "VOCdevkit" / year))
    path = voc.ensure_voc_json("voc_0712_trainval_coco", str(tmp_path / "data"))
    assert path.startswith(str(tmp_path / "data" / "VOCdevkit" / "coco_format"))
    assert voc.voc_image_root(str(tmp_path / "data")) == str(tmp_path / "data" / "VOCdevkit")


def test_conversion_is_kept_until_the_data_change(root, monkeypatch):
    first = voc.ensure_voc_json("voc_2007_trainval_coco", root)
    with monkeypatch.context() as m:
        m.setattr(voc, "convert_voc", None)  # would fail if it were called
        assert voc.ensure_voc_json("voc_2007_trainval_coco", root) == first
    with open(os.path.join(root, "VOC2007", "ImageSets", "Main", "trainval.txt"), "w") as f:
        f.write("000012\n")
    second = voc.ensure_voc_json("voc_2007_trainval_coco", root)
    assert second != first and len(read(second)["images"]) == 1
    assert not [name for name in os.listdir(os.path.dirname(first)) if "unfinished" in name]


def test_read_only_data_are_cached_elsewhere(root, tmp_path):
    with open(os.path.join(root, "coco_format"), "w"):  # a file where the folder would go: works for root users too
        pass
    path = voc.ensure_voc_json("voc_2007_test_coco", root)
    assert path.startswith(str(tmp_path / "cache")) and len(read(path)["images"]) == 1


def test_registered_names(root):
    saved = {name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in voc.VOC_SPLITS}
    try:
        builtin.register_voc_coco(root)
        dataset_dicts = DatasetCatalog.get("voc_0712_trainval_coco")
        assert len(dataset_dicts) == 3 and all(os.path.isfile(d["file_name"]) for d in dataset_dicts)
        metadata = MetadataCatalog.get("voc_0712_trainval_coco")
        assert metadata.evaluator_type == "coco" and len(metadata.thing_classes) == 20
        assert os.path.isfile(metadata.json_file)
        assert dataset_dicts[0]["annotations"][0]["category_id"] == metadata.thing_classes.index("dog")
    finally:
        for name, (function, metadata) in saved.items():
            DatasetCatalog.pop(name, None)
            DatasetCatalog.register(name, function)
            MetadataCatalog[name] = metadata


def test_missing_folder_and_broken_files(root, tmp_path):
    with pytest.raises(DataError, match="VOC2007/ImageSets/Main/trainval.txt.*DETECTRON2_DATASETS"):
        voc.ensure_voc_json("voc_0712_trainval_coco", str(tmp_path / "nowhere"))
    path = os.path.join(root, "VOC2007", "Annotations", "000012.xml")
    with open(path) as f:
        text = f.read()
    for broken, reason in [(text[:50], "no element found|not well-formed|unclosed"),
                           (text.replace("dog", "dragon"), "unknown class 'dragon'"),
                           (text.replace("<xmin>1</xmin>", ""), "NoneType"),
                           (text.replace("<width>60", "<width>x"), "x")]:
        with open(path, "w") as f:
            f.write(broken)
        with pytest.raises(DataError, match=f"000012.xml is not a readable VOC annotation: .*({reason})"):
            voc.convert_voc(root, (("VOC2007", "trainval"),), False)
    os.remove(path)
    with pytest.raises(DataError, match="000012.xml"):
        voc.convert_voc(root, (("VOC2007", "trainval"),), False)
