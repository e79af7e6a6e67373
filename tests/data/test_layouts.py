"""Folders in COCO's, YOLO's and Pascal VOC's layout: found by looking, read exactly, what is broken is named."""

import json
import os
import shlex

import pytest
from commands import refusal, status
from PIL import Image
from tiny_runs import TINY, quick_config, train_net

from d2_balanced.data import check, convert
from d2_balanced.data.layouts import data_of_folder, set_aside
from d2_balanced.train import argument_parser
from d2_balanced.utils.errors import ConfigError, DataError

NAMES = ["cat", "dog", "a cow"]


def image(path, width=64, height=48):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 150)).save(path)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def content(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


LABELS = "0 0.5 0.5 0.25 0.5\n2 0.25 0.25 0.5 0.5\n"
BOX = "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>64</xmax><ymax>20</ymax></bndbox>"


def yolo(folder, splits=("train", "val"), form="images/{}", labels=LABELS, yaml=None):
    """A folder in YOLO's layout, two images a split, of which the second has no objects."""
    for split in splits:
        images = os.path.join(folder, *form.format(split).split("/"))
        for k in range(2):
            image(os.path.join(images, f"{split}{k}.png"))
        write(os.path.join(images.replace("images", "labels"), f"{split}0.txt"), labels)
        write(os.path.join(images.replace("images", "labels"), f"{split}1.txt"), "")
    default = f"names: {NAMES}\n" + "".join(f"{split}: {form.format(split)}\n" for split in splits)
    write(os.path.join(folder, "data.yaml"), default if yaml is None else yaml)
    return str(folder)


def voc(folder, objects=f"<object><name>cat</name>{BOX}</object>"):
    for k in range(3):
        image(os.path.join(folder, "JPEGImages", f"{k}.jpg"))
        size = "<size><width>64</width><height>48</height></size>"
        xml = f"<annotation><filename>{k}.jpg</filename>{size}{objects if k < 2 else ''}</annotation>"
        write(os.path.join(folder, "Annotations", f"{k}.xml"), xml)
    write(os.path.join(folder, "ImageSets", "Main", "train.txt"), "0\n2\n")
    write(os.path.join(folder, "ImageSets", "Main", "val.txt"), "1\n")
    return str(folder)


def coco(folder, split, images, json_file):
    image(os.path.join(folder, images, f"{split}.png"))
    data = {
        "images": [{"id": 4, "file_name": f"{split}.png", "width": 64, "height": 48}],
        "annotations": [{"id": 9, "image_id": 4, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    write(os.path.join(folder, json_file), json.dumps(data))


@pytest.mark.parametrize("form", ["images/{}", "{}/images"])
def test_yolo_boxes_are_read_exactly(tmp_path, form):
    found = data_of_folder(yolo(tmp_path, form=form))
    train = content(found.train_json)
    assert [c["name"] for c in train["categories"]] == NAMES
    assert [(a["category_id"], a["bbox"], a["area"]) for a in train["annotations"]] == [
        (1, [24.0, 12.0, 16.0, 24.0], 384.0), (3, [0.0, 0.0, 32.0, 24.0], 768.0)
    ]
    assert [(i["width"], i["height"]) for i in train["images"]] == [(64, 48)] * 2
    assert all(os.path.isfile(os.path.join(found.train_images, i["file_name"])) for i in train["images"])
    assert len(content(found.val_json)["images"]) == 2
    assert "training: 2 images, 2 objects (cat 1, dog 0, a cow 1)" in found.notes


def test_yolo_polygons_and_boxes_that_reach_out(tmp_path):
    found = data_of_folder(yolo(tmp_path, labels="1 0 0 0.5 0 0.5 0.5\n0 0.0 0.5 0.5 0.5\n"))
    polygon, box = content(found.train_json)["annotations"]
    assert polygon["segmentation"] == [[0, 0, 32, 0, 32, 24]] and polygon["bbox"] == [0, 0, 32, 24]
    assert polygon["area"] == 32 * 24 / 2 and polygon["category_id"] == 2
    assert box["bbox"] == [0, 12, 16, 24] and "segmentation" not in box


def test_what_is_left_out_is_said(tmp_path):
    many = "".join(f"0 0.5 0.5 {k / 200} 0.5\n" for k in range(1, 151))
    labels = "0 0.5 0.5 0.005 0.5\n1 0.5 0.5 0 0.5\n1 0.5 1.5 0.1 0.1\n1 nan 0.5 0.1 0.1\n"
    folder = yolo(tmp_path, labels=many + labels)
    os.remove(tmp_path / "labels" / "train" / "train1.txt")
    found = data_of_folder(folder)
    assert len(content(found.train_json)["annotations"]) == 150
    said = "\n".join(found.left_out)
    for kind, place in [
        ("lines that stand twice, read once: 1", "train0.txt:151"), ("left out, without area: 1", "train0.txt:152"),
        ("outside of 0 to 1: 1", "train0.txt:153"), ("not finite: 1", "train0.txt:154"),
        ("without a label file, taken as images without objects: 1", "train1.png"),
    ]:
        assert kind in said and place in said
    assert data_of_folder(folder) == found  # from the file that was kept


def test_labels_without_an_image_are_said(tmp_path):
    folder, labels = yolo(tmp_path), tmp_path / "labels" / "train"
    write(labels / "no_suffix.txt", LABELS)
    image(tmp_path / "no_suffix.png")
    os.rename(tmp_path / "no_suffix.png", tmp_path / "images" / "train" / "no_suffix")
    write(labels / "classes.txt", "a b c d e\n")
    write(labels / "empty.txt", "")
    (said,) = [line for line in data_of_folder(folder).left_out if "without an image" in line]
    assert "left out: 1 (" in said and said.endswith("no_suffix.txt)")


@pytest.mark.parametrize("encoding, called", [("utf-16", "UTF-16"), ("latin-1", "Latin-1")])
def test_text_in_another_encoding_is_refused_by_name(tmp_path, encoding, called):
    folder, text = yolo(tmp_path / "a"), "0 0.5 0.5 0.2 0.2 \u00e4".encode(encoding)
    (tmp_path / "a" / "labels" / "train" / "train0.txt").write_bytes(text)
    with pytest.raises(DataError, match=f"train0.txt is not in UTF-8, but {called}"):
        data_of_folder(folder)
    folder = voc(tmp_path / "b")
    (tmp_path / "b" / "ImageSets" / "Main" / "val.txt").write_bytes(text)
    with pytest.raises(DataError, match=f"val.txt is not in UTF-8, but {called}"):
        data_of_folder(folder)


def test_a_label_file_for_two_and_classes_without_names_are_said(tmp_path):
    folder = yolo(tmp_path, splits=("train",), yaml="nc: 3\n")
    image(tmp_path / "images" / "train" / "train0.jpg")
    said = "\n".join(data_of_folder(folder).left_out)
    assert "share the label file of another (their names differ in the ending only): 1 (images/train/train0.png)" in said
    assert "called by their numbers: 1 (0, 1, 2)" in said
    windows = yolo(tmp_path / "windows", splits=("train",), yaml=f"names: {NAMES}\ntrain: images\\train\n")
    assert len(content(data_of_folder(windows).train_json)["images"]) == 2


def test_folders_behind_links_are_read_once_and_what_changes_in_them_is_seen(tmp_path):
    real = yolo(tmp_path / "elsewhere", splits=("train",), form="one/images/{}")
    folder = tmp_path / "data"
    for kind in ("images", "labels"):
        os.makedirs(folder / kind / "train")
        os.symlink(os.path.join(real, "one", kind, "train"), folder / kind / "train" / "first")
    os.symlink(folder / "images", folder / "images" / "train" / "first" / "back")  # a circle
    os.symlink(tmp_path / "gone", folder / "gone")
    write(folder / "data.yaml", f"names: {NAMES}\ntrain: images/train\n")
    before = content(data_of_folder(folder).train_json)
    assert [each["file_name"] for each in before["images"]] == [f"images/train/first/train{k}.png" for k in range(2)]
    write(os.path.join(real, "one", "labels", "train", "train0.txt"), "1 0.5 0.5 0.5 0.5\n")
    assert [each["category_id"] for each in content(data_of_folder(folder).train_json)["annotations"]] == [2]


def test_what_changes_outside_of_the_folder_is_seen(tmp_path):
    real = yolo(tmp_path / "elsewhere", splits=("train",))
    write(tmp_path / "data" / "data.yaml", f"names: {NAMES}\npath: {real}\ntrain: images/train\n")
    assert len(content(data_of_folder(tmp_path / "data").train_json)["annotations"]) == 2
    write(os.path.join(real, "labels", "train", "train0.txt"), "1 0.5 0.5 0.5 0.5\n")
    assert len(content(data_of_folder(tmp_path / "data").train_json)["annotations"]) == 1


@pytest.mark.parametrize("labels, message", [
    ("0 0.5 0.5 0.1 0.1 0.9", r"train0.txt:1 is neither a box.*prediction with its score"),
    ("0 0.5 0.5", r"train0.txt:1 is neither a box"),
    ("cat 0.5 0.5 0.1 0.1", r"train0.txt:1 is neither a box"),
    ("0 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1 0.1", r"train0.txt:2: class 3 is not one of 0 to 2"),
    ("-1 0.5 0.5 0.1 0.1", r"train0.txt:1: class -1"),
    ("0.5 0.5 0.5 0.1 0.1", r"train0.txt:1: class 0.5"),
    ("0 32 24 10 12\n1 10 10 5 5\n0 0.5 0.5 0.1 0.1", r"2 of 3 objects cannot be read.*train0.txt:1.*not pixels"),
])  # fmt: skip
def test_broken_labels_name_file_and_line(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        data_of_folder(yolo(tmp_path, labels=labels))


def test_roboflows_paths_that_lead_out_of_the_folder(tmp_path):
    yaml = f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {NAMES}\n"
    folder = yolo(tmp_path / "export", splits=("train", "valid"), form="{}/images", yaml=yaml)
    found = data_of_folder(folder)
    assert len(content(found.train_json)["images"]) == len(content(found.val_json)["images"]) == 2


@pytest.mark.parametrize("yaml, message", [
    ("names: [a]\ntrain: nowhere\n", "'nowhere'.*neither a folder of images nor a list"),
    ("names: {0: a, 2: b}\n", "must count its classes from 0"),
    ("names: cat\n", "must be a list of names"),
    ("names: [dog, no]\n", "must be a list of names.*got .'dog', False."),
    ("names:\n", "must be a list of names"),
    ("names: [[a, b]]\n", "must be a list of names"),
    ("names: [a, b]\nnc: 3\n", "there are 2 .a, b., and nc says 3"),
    ("names: [a]\nkpt_shape: [17, 3]\n", "keypoints"),
    ("names: [a\n", "no readable YAML"),
])  # fmt: skip
def test_broken_settings(tmp_path, yaml, message):
    with pytest.raises(DataError, match=message):
        data_of_folder(yolo(tmp_path, yaml=yaml))


def test_voc_boxes_are_read_as_detectron2_does(tmp_path):
    found = data_of_folder(voc(tmp_path))
    train = content(found.train_json)
    assert [i["file_name"] for i in train["images"]] == ["JPEGImages/0.jpg", "JPEGImages/2.jpg"]
    assert [(a["image_id"], a["bbox"]) for a in train["annotations"]] == [(1, [0.0, 2.0, 64.0, 18.0])]
    assert train["categories"] == content(found.val_json)["categories"] == [{"id": 1, "name": "cat"}]


def test_images_without_xml_are_said(tmp_path):
    folder = voc(tmp_path)
    image(tmp_path / "JPEGImages" / "9.jpg")
    (said,) = [line for line in data_of_folder(folder).left_out if "without an XML file" in line]
    assert ": 1 (" in said and said.endswith("9.jpg)")


@pytest.mark.parametrize("objects, message", [
    ("<object><name>cat</name></object>", "0.xml, object 1 has no bndbox of four numbers"),
    (f"<object>{BOX}</object>", "object 1 has no name"),
    ("<object>", "0.xml is not a readable VOC annotation"),
])  # fmt: skip
def test_broken_xml_is_named(tmp_path, objects, message):
    with pytest.raises(DataError, match=message):
        data_of_folder(voc(tmp_path, objects))


def test_a_stated_size_that_is_no_number_is_said(tmp_path):
    folder = voc(tmp_path)
    path = tmp_path / "Annotations" / "0.xml"
    path.write_text(path.read_text().replace("<width>64", "<width>many"))
    assert any("state another size" in line and "0.xml" in line for line in data_of_folder(folder).left_out)


def test_a_missing_image_is_named(tmp_path):
    folder = voc(tmp_path)
    os.remove(tmp_path / "JPEGImages" / "0.jpg")
    with pytest.raises(DataError, match="the image of .*0.xml .0.jpg. is neither in"):
        data_of_folder(folder)


def test_coco_and_roboflows_coco_are_taken_as_they_are(tmp_path):
    for split, images in (("train", "train2017"), ("val", "val2017")):
        coco(tmp_path / "a", split, images, f"annotations/instances_{split}2017.json")
    for split, images in (("train", "train"), ("val", "valid"), ("test", "test")):
        coco(tmp_path / "b", split, images, f"{images}/_annotations.coco.json")
    first, second = data_of_folder(str(tmp_path / "a")), data_of_folder(str(tmp_path / "b"))
    assert first[:4] == tuple(str(tmp_path / "a" / each) for each in (
        "annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"))
    assert second[:4] == tuple(str(tmp_path / "b" / each) for each in (
        "train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"))
    assert not os.path.exists(tmp_path / "a" / "coco_format")


def test_folders_that_cannot_be_told(tmp_path):
    with pytest.raises(DataError, match="has no layout that is known: COCO .*YOLO .*Pascal VOC"):
        data_of_folder(str(tmp_path))
    voc(yolo(tmp_path / "two"))
    with pytest.raises(DataError, match="several layouts: YOLO, Pascal VOC"):
        data_of_folder(str(tmp_path / "two"))
    with pytest.raises(DataError, match="nowhere does not exist"):
        data_of_folder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="data.yaml is a file; give the folder"):
        data_of_folder(str(tmp_path / "two" / "data.yaml"))
    coco(tmp_path / "c", "train", "elsewhere", "train.json")
    with pytest.raises(DataError, match="image 'train.png' of .*train.json is not in .*that is there: .*elsewhere"):
        data_of_folder(str(tmp_path / "c"))


def test_a_share_is_set_aside_by_names_and_seed(tmp_path):
    folder = yolo(tmp_path, splits=("train",), labels="0 0.5 0.5 0.25 0.5\n")
    for k in range(2, 10):
        image(str(tmp_path / "images" / "train" / f"train{k}.png"))
    alone = data_of_folder(folder)
    assert alone.val_json == "" and any("--val-fraction" in note for note in alone.notes)

    def names(path):
        return [i["file_name"] for i in content(path)["images"]]

    found = data_of_folder(folder, 0.3, seed=1)
    assert (len(names(found.train_json)), len(names(found.val_json))) == (7, 3)
    assert sorted(names(found.train_json) + names(found.val_json)) == sorted(names(alone.train_json))
    assert data_of_folder(folder, 0.3, seed=1)[:4] == found[:4]
    assert names(data_of_folder(folder, 0.3, seed=2).val_json) != names(found.val_json)
    shuffled = content(alone.train_json)
    shuffled["images"].reverse()
    write(str(tmp_path / "shuffled.json"), json.dumps(shuffled))
    again = set_aside(str(tmp_path / "shuffled.json"), folder, 0.3, seed=1)
    assert sorted(names(again.val_json)) == sorted(names(found.val_json))
    ids = {i["id"] for i in content(again.train_json)["images"]}
    assert {a["image_id"] for a in content(again.train_json)["annotations"]} <= ids


def test_a_share_of_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="annotation file .*nowhere.json cannot be read .*No such file"):
        set_aside(str(tmp_path / "nowhere.json"), str(tmp_path), 0.2)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_shares_that_are_none(tmp_path, fraction):
    with pytest.raises(ConfigError, match="--val-fraction must be above 0 and below 1"):
        data_of_folder(yolo(tmp_path, splits=("train",)), fraction)


def test_a_share_of_data_that_have_a_validation_set(tmp_path):
    with pytest.raises(ConfigError, match="--val-fraction is for data without a validation set"):
        data_of_folder(yolo(tmp_path), 0.2)


def test_read_only_folders_are_converted_into_the_cache(tmp_path, monkeypatch):
    folder = yolo(tmp_path / "data")
    write(os.path.join(folder, "coco_format"), "a file where the folder would be")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    assert data_of_folder(folder).train_json.startswith(str(tmp_path / "cache"))


def test_training_on_a_folder_and_going_on_without_it(tmp_path, capsys):
    folder, out = yolo(tmp_path / "data"), str(tmp_path / "out")
    words = ["--config-file", quick_config("faster_rcnn"), "--data", folder, "--output-dir", out]
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 2) == 0
    with open(os.path.join(out, "log.txt")) as file:
        log = file.read()
    assert "YOLO layout" in log and "training: 2 images, 2 objects (cat 1, dog 0, a cow 1)" in log
    assert train_net("--resume", "--output-dir", out, "SOLVER.MAX_ITER", 3) == 0
    assert os.path.isfile(os.path.join(out, "inference", "own_val", "metrics.json"))
    assert train_net(*words[:2], "--data", folder, "--train-json", "a.json", "--output-dir", out) == 2
    assert "leave out --train-json" in capsys.readouterr().err
    assert train_net(*words[:2], "--val-fraction", "0.2", "--output-dir", str(tmp_path / "other")) == 2
    assert "--val-fraction splits --data" in capsys.readouterr().err


def test_check_and_convert(tmp_path, capsys):
    folder = yolo(tmp_path / "data", splits=("train",))
    assert status(check.main, "--data", folder) == 0
    assert "YOLO layout" in capsys.readouterr().out
    words = [folder, "--output", str(tmp_path / "out"), "--val-fraction", "0.5"]
    assert status(convert.main, *words) == 0
    said = capsys.readouterr().out
    assert f"--train-json {tmp_path}/out/train.json --train-images {folder}" in said and "--val-json" in said
    assert len(content(tmp_path / "out" / "val.json")["images"]) == 1
    assert "train.json is there already" in refusal(convert.main, *words)


def test_the_command_that_convert_prints_can_be_pasted(tmp_path, capsys):
    folder, out = yolo(tmp_path / 'my "own" ü\'s'), str(tmp_path / "out put")
    assert status(convert.main, folder, "--output", out) == 0
    words = shlex.split(capsys.readouterr().out.split("d2_balanced train ")[1])
    args = argument_parser().parse_args(words)
    assert (args.train_json, args.val_json) == (f"{out}/train.json", f"{out}/val.json")
    assert args.train_images == args.val_images == folder
