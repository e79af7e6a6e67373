"""Every fault of a data set is reported with the image and the annotation it is in; sound data are not blamed."""

import copy
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from commands import refusal
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.structures import BoxMode
from data.drawn import SOUND, annotation, draw
from paths import ROOT, shared_file
from PIL import Image

from d2_balanced.data import check, check_boxes
from d2_balanced.data.check_dataset import check_dataset, check_dicts, check_registered, run_checks
from d2_balanced.data.check_masks import rle_length
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.utils.errors import DataError


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path)
    return tmp_path


def report_of(folder, change=lambda content: None, num_classes=2, **options):
    content = copy.deepcopy(SOUND)
    change(content)
    (folder / "a.json").write_text(json.dumps(content))
    return check_dataset(str(folder / "a.json"), str(folder), num_classes, **options)


def test_sound_data(folder):
    report = report_of(folder, mask_format="polygon")
    assert (report.errors, report.warnings) == ([], [])
    assert report.summary["per_class"] == {"cat": 2, "dog": 2}
    assert report.summary["objects_an_image"] == {"min": 1, "mean": 1.3, "median": 1.0, "max": 2}
    assert report.summary["image_files"] == {"opened": 3, "decoded": 3}
    assert report.raise_if_errors() is report


def test_real_data_are_sound():
    json_file = shared_file("data", "bccd", "annotations", "train.json")
    report = check_dataset(json_file, shared_file("data", "bccd", "train"), 3)
    assert (report.errors, report.warnings) == ([], [])
    assert report.summary["per_class"] == {"RBC": 2381, "WBC": 214, "Platelets": 209}


def set_annotation(k, **fields):
    return lambda content: content["annotations"][k].update(fields)


def set_boxes(*boxes):
    """Two of four annotations: more than are left out with a warning."""
    return lambda content: [a.update(bbox=box, segmentation=[]) for a, box in zip(content["annotations"][1:], boxes)]


def set_image(k, **fields):
    return lambda content: content["images"][k].update(fields)


def drop(records, k, key):
    return lambda content: content[records][k].pop(key)


def scale(factor):
    def change(content):
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            a["bbox"] = [x / 60 * factor, y / 40 * factor, w / 60 * factor, h / 40 * factor]
            a["segmentation"] = []
    return change


def corners(content):
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        a["bbox"] = [x, y, x + w, y + h]


ERRORS = {
    "box NaN": (set_boxes([float("nan"), 1, 5, 5], [1, 1, float("inf"), 5]), ["not four finite", "image 8 (8.jpg)"]),
    "box of others": (set_boxes([1, 1, 5], ["1", 1, 5, 5]), ["not four finite", "annotation 2", "annotation 3"]),
    "box of none": (set_boxes(None, [10**400, 1, 2, 3]), ["not four finite", "annotation 2", "annotation 3"]),
    "box negative": (set_boxes([50, 10, -20, 20], [50, 10, 20, -1]), ["negative width or height", "annotation 2"]),
    "box zero": (set_boxes([30, 10, 20, 0], [30, 10, 0, 20]), ["zero width or height", "image 7 (7.jpg), annotation 2",
                                                               "up to 1 broken ones of 4 are left out"]),
    "box outside": (set_boxes([70, 10, 20, 20], [70, 10, 20, 20]), ["wholly outside", "annotation 2", "[70.0, 10.0"]),
    "box far outside": (set_boxes([0, 0, 1e9, 1e9], [0, 0, 1e9, 9]), ["10 image sizes outside", "annotation 3"]),
    "boxes XYXY": (corners, ["look like [x1, y1, x2, y2]", "annotation 2", "[x, y, width, height]"]),
    "boxes relative": (scale(1), ["relative to the image's size", "annotation 1"]),
    "box elsewhere than its polygon": (set_annotation(1, bbox=[1, 1, 20, 20]), ["not lie where their", "ion 2"]),
    "image id twice": (set_image(1, id=7), ["duplicate image id", "7 (2 times)"]),
    "annotation id twice": (set_annotation(1, id=4), ["duplicate annotation id", "4 (2 times)"]),
    "category id twice": (lambda c: c["categories"].append({"id": 5, "name": "eel"}), ["duplicate category", "5 (2"]),
    "category id of text": (lambda c: c["categories"][0].update(id="cat"), ["category ids must be integers", "'cat'"]),
    "unknown image": (set_annotation(0, image_id=77), ["the file does not list", "annotation 1, image_id 77"]),
    "unknown category": (set_annotation(0, category_id=4), ["unknown categor", "tion 1", "category_id 4", "[3, 5]"]),
    "no annotation id": (drop("annotations", 1, "id"), ["without 'id'", "annotations[1]"]),
    "no category": (drop("annotations", 1, "category_id"), ["without 'category_id'", "annotations[1]"]),
    "no file name": (drop("images", 1, "file_name"), ["without 'file_name'", "images[1]"]),
    "no size": (drop("images", 1, "width"), ["without a positive 'width' and 'height'", "image 8"]),
    "size zero": (set_image(1, height=0), ["without a positive 'width' and 'height'", "image 8"]),
    "crowd neither 0 nor 1": (set_annotation(3, iscrowd=2), ["neither 0 nor 1", "annotation 4"]),
    "ignore": (set_annotation(3, ignore=1), ["with 'ignore'", "annotation 4", "iscrowd 1"]),
    "no objects": (lambda c: c["annotations"].clear(), ["no object in any image"]),
    "only crowd": (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], ["no object in any image"]),
    "no images": (lambda c: (c["images"].clear(), c["annotations"].clear()), ["there are no images"]),
    "missing list": (lambda c: c.pop("categories"), ["not in COCO format", "categories"]),
    "list of wrong things": (lambda c: c["images"].append(3), ["not in COCO format", "images"]),
    "file missing": (set_image(1, file_name="no.jpg"), ["1 image file(s) missing", "image 8 (no.jpg)"]),
    "file size": (set_image(1, width=61), ["another size", "image 8 (8.jpg): the file is 60 x 40, annotated are 61 x"]),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_error(folder, fault):
    change, expected = ERRORS[fault]
    report = report_of(folder, change)
    matching = [message for message in report.errors if expected[0] in message]
    assert len(matching) == 1, report
    for text in expected:
        assert text in matching[0]
    with pytest.raises(DataError) as info:
        report.raise_if_errors()
    assert info.value.report is report and all(message in str(info.value) for message in report.errors)


WARNINGS = {
    "box partly outside": (set_annotation(3, bbox=[50, 30, 14, 8], segmentation=None), ["reach outside", "ion 4"]),
    "empty image": (lambda c: c["annotations"].pop(2), ["1 image(s) without objects", "image 8 (8.jpg)"]),
    "class without objects": (lambda c: c["categories"].append({"id": 9, "name": "eel"}), ["class(es) without", "eel"]),
    "file twice": (set_image(1, file_name="7.jpg"), ["duplicate file name", "7.jpg (2 times)"]),
    "class name twice": (lambda c: c["categories"][1].update(name="cat"), ["duplicate category name", "cat (2 times)"]),
    "box twice": (lambda c: c["annotations"].append(annotation(5, 7, 5, 6, 10)), ["annotated twice", "tion 5"]),
    "no area": (drop("annotations", 1, "area"), ["no positive number (it is 'none')", "tion 2", "pycocotools alone"]),
    "area of text": (set_annotation(1, area="400"), ["no positive number (it is '400')", "annotation 2"]),
    "area NaN": (set_annotation(1, area=float("nan")), ["no positive number (it is nan)", "annotation 2"]),
    "area of another image size": (set_annotation(1, area=1600.0), ["does not fit their box", "annotation 2", "1600"]),
    "area constant": (lambda c: [a.update(area=1.0) for a in c["annotations"]] and c["annotations"][1].update(area=1.0),
                      ["does not fit their box (it is 1 to 1)", "annotation 2", "delete the field"]),
    "id 0": (set_annotation(0, id=0), ["annotation id 0", "image 7"]),
    "test set": (lambda c: c.pop("annotations"), ["there are no annotations", "neither trained nor evaluated"]),
    "dense": (lambda c: c["annotations"].extend(annotation(k, 7, 1 + k / 9, 2, 7) for k in range(5, 108)),
              ["more than 100 objects", "image 7", "DETECTIONS_PER_IMAGE"]),
}


@pytest.mark.parametrize("oddity", WARNINGS)
def test_warning(folder, oddity):
    change, expected = WARNINGS[oddity]
    report = report_of(folder, change, num_classes=None)
    matching = [message for message in report.warnings if expected[0] in message]
    assert report.errors == [] and len(matching) == 1, report
    for text in expected:
        assert text in matching[0]


def test_class_count(folder):
    report = report_of(folder, num_classes=80)
    assert report.errors == ["the model has 80 classes, the data set 2 (cat, dog). Set MODEL.ROI_HEADS.NUM_CLASSES or "
                             "MODEL.RETINANET.NUM_CLASSES to 2."]


BROKEN = {
    "zero": [30, 10, 20, 0], "negative": [30, 10, 20, -1], "outside": [70, 10, 5, 5], "NaN": [float("nan"), 1, 5, 5],
    "short": [1, 2, 3], "missing": None, "text": "1 2 3 4", "far outside": [0, 0, 1e9, 1e9], "narrow": [1, 1, 1e-7, 9],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_box_among_others_is_left_out_with_a_warning(folder, kind):
    """Of training and of evaluation; an accidental click must not stop a run, a faulty converter must."""
    def change(content, broken=1):
        content["annotations"] = [annotation(k, 7 + k % 3, k % 40, k % 20, 10) for k in range(1, 89)]
        for a in content["annotations"][:broken]:
            a.update(bbox=BROKEN[kind], segmentation=[])

    report = report_of(folder, change)
    left_out = [message for message in report.warnings if "left out of training and of evaluation" in message]
    assert report.errors == [] and len(left_out) == 1 and "annotation 1," in left_out[0]
    assert report.summary["left_out"] == 1 and report.identity.annotations == 87
    dataset = register_by_path("checked_broken", str(folder / "a.json"), str(folder), replace=True)
    assert sum(len(record["annotations"]) for record in DatasetCatalog.get(dataset.name)) == 87
    assert len(GroundTruth.from_catalog(dataset.name).annotations) == 87
    with pytest.raises(DataError, match="Warnings are errors here"):
        run_checks([dataset.name], 2, strict=True)
    report = report_of(folder, lambda content: change(content, 2))
    assert any("up to 1 broken ones of 88 are left out" in message for message in report.errors)


def test_more_broken_boxes_are_left_out_of_a_large_set():
    assert [check_boxes.tolerated(n) for n in (1, 88, 500, 5000, 100_000)] == [1, 1, 10, 20, 100]


def test_only_the_first_places_are_named(folder):
    def change(content):
        content["annotations"] = [annotation(k, 7, 1, 1, -k) for k in range(1, 13)]

    message = next(m for m in report_of(folder, change).errors if "negative" in m)
    assert message.startswith("12 box(es)") and "annotation 5," in message and "annotation 6," not in message
    assert "and 7 more" in message


@pytest.mark.parametrize("segmentation, text", [
    ([[1, 2, 3, 4, 5]], "no polygon of three points"), ([[1, 2, 3, 4, 5, float("nan")]], "no polygon of three points"),
    ([[1, 2, 3, 4]], "no polygon of three points"), ("round", "no polygon"), (7, "no polygon"),
    ([[[1, 2], [3, 4], [5, 6], [1, 1], [2, 2], [3, 3]]], "no polygon"), ([["a"] * 6], "no polygon"),
    ([[1e9, 0, 1e9, 9, 9, 9]], "no polygon"), ([30, 10, 50, 10, 50, 30], "a polygon needs a list around it"),
    ({"size": [60, 40], "counts": [2400]}, "its size is [60, 40], the image's height and width are [40, 60]"),
    ({"size": [40, 60], "counts": [7, 9]}, "cover 16 pixels of 2400"), ({"size": ["a", 60], "counts": [1]}, "size is"),
    ({"size": [40, 60], "counts": "!"}, "cover -1 pixels"), ({"counts": [1]}, "needs 'size' [height, width]"),
    ({"size": [40, 60], "counts": [2400.0]}, "cover -1 pixels"),
])
def test_what_is_no_mask_is_taken_away_and_the_box_stays(folder, segmentation, text):
    """detectron2's loader would leave out the whole object, or fail."""
    report = report_of(folder, set_annotation(1, segmentation=segmentation))
    found, = [message for message in report.warnings if "neither polygons nor RLE" in message]
    assert report.errors == [] and text in found and "annotation 2" in found and "boxes without a mask" in found
    report = report_of(folder, set_annotation(1, segmentation=segmentation), mask_format="polygon")
    assert report.errors == [] and any("without a mask, and the model trains" in message for message in report.warnings)
    dataset = register_by_path("checked_masks", str(folder / "a.json"), str(folder), replace=True)
    loaded = [a for record in DatasetCatalog.get(dataset.name) for a in record["annotations"]]
    assert [("segmentation" in a) for a in loaded] == [True, False, True, True]
    truth = GroundTruth.from_catalog(dataset.name)
    assert ["segmentation" in a for a in truth.annotations] == [True, False, True, True]


def test_masks_that_the_model_cannot_train(folder):
    report = report_of(folder, lambda c: [a.pop("segmentation") for a in c["annotations"][1:3]], mask_format="polygon")
    assert "2 annotation(s) without a mask" in report.errors[0] and "annotation 2" in report.errors[0]
    report = report_of(folder, drop("annotations", 1, "segmentation"), mask_format="polygon")
    assert report.errors == [] and "annotation 2" in report.warnings[0] and "left out of training" in report.warnings[0]
    mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    mask[10:30, 30:50] = 1
    encoded = coco_mask.encode(mask)
    encoded["counts"] = encoded["counts"].decode()
    report = report_of(folder, set_annotation(1, segmentation=encoded), mask_format="polygon")
    assert "run-length encoded" in report.errors[0] and "annotation 2" in report.errors[0]
    assert "INPUT.MASK_FORMAT to bitmask" in report.errors[0]
    for mask_format in ("bitmask", None):
        assert report_of(folder, set_annotation(1, segmentation=encoded), mask_format=mask_format).errors == []


def test_rle_length_equals_pycocotools():
    rng = np.random.RandomState(0)
    for height, width, share in [(1, 1, 0.5), (40, 60, 0.5), (300, 500, 0.001), (300, 500, 0.0), (37, 91, 1.0)]:
        mask = np.asfortranarray(rng.random_sample((height, width)) < share).astype(np.uint8)
        counts = coco_mask.encode(mask)["counts"]
        assert rle_length(counts) == rle_length(counts.decode()) == height * width
        if len(counts) > 1:
            assert rle_length(counts[:-1]) != height * width
    assert rle_length([3, -1]) == -1


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])


@pytest.mark.parametrize("images", ["auto", "decode", "headers"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image(folder, images, suffix):
    """Also found when only headers are read: the file does not end as it should."""
    Image.open(str(folder / "8.jpg")).save(str(folder / ("b" + suffix)))
    truncate(folder / ("b" + suffix), 0.6)
    report = report_of(folder, set_image(1, file_name="b" + suffix), images=images)
    assert len(report.errors) == 1 and f"image 8 (b{suffix}): OSError" in report.errors[0]
    assert report.errors[0].startswith("1 image file(s) that cannot be read completely")


def test_damage_in_the_middle_needs_decoding(folder):
    Image.open(str(folder / "8.jpg")).save(str(folder / "b.png"))
    data = bytearray((folder / "b.png").read_bytes())
    data[len(data) // 2:len(data) // 2 + 40] = bytes(40)
    (folder / "b.png").write_bytes(bytes(data))
    change = set_image(1, file_name="b.png")
    assert len(report_of(folder, change, images="decode").errors) == 1
    assert report_of(folder, change, images="headers").errors == []


def test_file_that_is_no_image(folder):
    (folder / "8.jpg").write_text("not found")
    (folder / "9.jpg").write_bytes(b"")
    report = report_of(folder)
    assert "2 image file(s) that cannot be read completely" in report.errors[0] and "image 9" in report.errors[0]
    assert report_of(folder, images="none").errors == []


def test_size_is_compared_after_exif_orientation(folder):
    image = Image.open(str(folder / "8.jpg"))
    exif = image.getexif()
    exif[274] = 6
    image.save(str(folder / "8.jpg"), exif=exif)
    report = report_of(folder)
    assert "the file is 40 x 60, annotated are 60 x 40 (turned by EXIF orientation?)" in report.errors[0]
    assert not report_of(folder, lambda c: (set_image(1, width=40, height=60)(c), c["annotations"].pop(2))).errors


def test_missing_folder_and_wrong_level_of_folders(folder):
    (folder / "a.json").write_text(json.dumps(SOUND))
    report = check_dataset(str(folder / "a.json"), str(folder / "no"))
    assert report.errors == [f"image folder {folder / 'no'} does not exist"]
    report = report_of(folder, lambda c: [i.update(file_name="train/" + i["file_name"]) for i in c["images"]])
    assert f"7.jpg is in {folder}, but the annotation file calls it train/7.jpg" in report.errors[0]


def test_unreadable_annotation_files(folder):
    assert "does not exist" in check_dataset(str(folder / "no.json"), str(folder)).errors[0]
    (folder / "a.json").write_text(json.dumps(SOUND)[:100])
    assert "not a JSON file" in check_dataset(str(folder / "a.json"), str(folder)).errors[0]
    (folder / "a.json").write_text("[]")
    assert "not in COCO format" in check_dataset(str(folder / "a.json"), str(folder)).errors[0]


def test_wrong_mode(folder):
    with pytest.raises(ValueError, match="mode must be auto.*'all'"):
        report_of(folder, images="all")


# ---- registered data sets


@pytest.fixture
def registered(folder):
    (folder / "a.json").write_text(json.dumps(SOUND))
    names = []

    def register(name, loader, **metadata):
        DatasetCatalog.register(name, loader)
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def coco_name(register, folder):
    return register("checked_coco", lambda: load_coco_json(str(folder / "a.json"), str(folder), "checked_coco"),
                    json_file=str(folder / "a.json"), image_root=str(folder), evaluator_type="coco")


def test_registered_coco_is_checked_from_its_file(registered, folder):
    name = coco_name(registered, folder)
    assert check_registered(name, 2).errors == []
    content = copy.deepcopy(SOUND)
    content["annotations"][1]["id"] = 1  # detectron2's loader would fail with an assertion
    (folder / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"checked_coco[\s\S]*duplicate annotation id"):
        run_checks([name], 2)


def test_dicts_have_the_same_findings(registered, folder):
    """A data set without a JSON file: its dicts are checked, in whatever box mode they are."""
    loaded = load_coco_json(str(folder / "a.json"), str(folder), "checked_dicts_source")
    for record in loaded:
        for a in record["annotations"]:
            a["bbox"] = BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
            a["bbox_mode"] = BoxMode.XYXY_ABS
    name = registered("checked_dicts", lambda: copy.deepcopy(loaded), thing_classes=["cat", "dog"])
    report = check_registered(name, 2, mask_format="polygon")
    assert (report.errors, report.warnings) == ([], [])
    assert report.summary["per_class"] == {"cat": 2, "dog": 2}
    loaded[0]["annotations"][0].update(bbox=[5, 6, 5, 20], category_id=2)
    loaded[0]["annotations"][1].update(bbox=[5, 6, 5, 20])
    loaded[1]["file_name"] = loaded[1]["file_name"] + "x"
    errors = "\n".join(check_registered(name, 3).errors)
    for text in ("zero width or height: image 7 (7.jpg)", "whose class is not one of the 2", "missing: image 8",
                 "the model has 3 classes"):
        assert text in errors


def test_dicts_without_annotations():
    dataset_dicts = [{"file_name": "a.jpg", "image_id": 1, "height": 4, "width": 4}]
    report = check_dicts(dataset_dicts, ["cat"], images="none")
    assert report.errors == [] and report.warnings[0].startswith("there are no annotations")
    report = check_dicts([{**dataset_dicts[0], "annotations": []}], ["cat"], images="none")
    assert report.errors == ["there is no object in any image (crowd regions do not count)"]


def test_run_checks_logs_warnings_and_collects_errors(registered, folder, caplog):
    name = coco_name(registered, folder)
    content = copy.deepcopy(SOUND)
    content["annotations"].pop(2)
    (folder / "a.json").write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, logger="check_test"):
        reports = run_checks([name], 2, logger=logging.getLogger("check_test"))
    assert len(reports) == 1 and "image(s) without objects" in caplog.text and "per class: cat 1, dog 2" in caplog.text
    second = registered("checked_second", lambda: [], json_file=str(folder / "a.json"), image_root=str(folder))
    with pytest.raises(DataError) as info:
        run_checks([name, second], 7)
    assert str(info.value).count("the model has 7 classes") == 2


def test_unknown_name():
    with pytest.raises(DataError, match="no registered data set 'coco_2017_trian'.*Did you mean coco_2017_train"):
        check_registered("coco_2017_trian")


@pytest.mark.parametrize("name, parts", [
    ("coco_2017_val", ["annotations/instances_val2017.json", "coco/val2017"]),
    ("voc_2007_trainval", ["VOC2007/ImageSets/Main/trainval.txt"]),
])
def test_detectron2s_own_names_say_where_they_are_looked_for(name, parts):
    assert name in DatasetCatalog
    with pytest.raises(DataError) as info:
        check_registered(name)
    for part in parts + [name, "DETECTRON2_DATASETS"]:
        assert part in str(info.value)


# ---- the command


def test_command(folder, capsys):
    (folder / "a.json").write_text(json.dumps(SOUND))
    args = ["--json", str(folder / "a.json"), "--images", str(folder)]
    assert check.main(args) == 0
    assert "0 error(s), 0 warning(s)" in capsys.readouterr().out
    assert check.main(args + ["--num-classes", "3"]) == 1
    assert "the model has 3 classes" in capsys.readouterr().out
    shutil.move(str(folder / "8.jpg"), str(folder / "gone"))
    assert check.main(args) == 1
    assert "image 8 (8.jpg)" in capsys.readouterr().out
    assert "DETECTRON2_DATASETS" in refusal(check.main, "--name", "coco_2017_val")
    with pytest.raises(SystemExit):
        check.main(["--json", str(folder / "a.json")])
    assert os.path.isfile(folder / "a.json")


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    """As in ``... | head -1``."""
    (folder / "a.json").write_text(json.dumps(SOUND))
    words = ["--json", str(folder / "a.json"), "--images", str(folder)]
    command = [sys.executable, "-m", "d2_balanced.data.check", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141
