"""Pictures of detections beside the ground truth: what is drawn where, which images, the commands."""

import json
import os

import numpy as np
import pytest
import torch
from d2_balanced.analysis import pictures
from d2_balanced.engine.open import open_experiment
from d2_balanced.utils import fonts
from d2_balanced.utils.drawing import class_color, draw_objects, side_by_side
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from paths import ROOT
from PIL import Image

QUICK = "configs/quick/faster_rcnn_R_18_FPN"
GREY = (90, 90, 90)


@pytest.fixture
def dataset(tmp_path):
    """Name of a data set of 5 grey images (60 x 40) with one object each, 20 x 10 at (10, 20); category ids 7 and 8."""
    records = []
    for k in range(5):
        path = tmp_path / f"photo{k}.png"
        Image.new("RGB", (60, 40), GREY).save(path)
        mask = [[10, 20, 30, 20, 30, 30, 10, 30]]
        item = {"bbox": [10, 20, 20, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": k % 2, "segmentation": mask}
        records.append({"file_name": str(path), "image_id": k, "height": 40, "width": 60, "annotations": [item]})
    DatasetCatalog.register("pictures_test", lambda: records)
    metadata = MetadataCatalog.get("pictures_test")
    metadata.set(thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={7: 0, 8: 1})
    yield "pictures_test"
    DatasetCatalog.remove("pictures_test")
    MetadataCatalog.remove("pictures_test")


def colors(image):
    return {color for _, color in image.getcolors(1 << 24)}


def result(image_id, score, **more):
    return {"image_id": image_id, "category_id": 8, "bbox": [10, 20, 20, 10], "score": score, **more}


def test_one_picture_an_image_and_a_contact_sheet(dataset, tmp_path):
    paths = pictures.save_pictures(dataset, [result(0, 0.9), result(2, 0.3)], tmp_path / "out", num=3)
    assert [path.rsplit("/")[-1] for path in paths] == [
        "00_photo0.png", "01_photo1.png", "02_photo3.png", "contact_sheet.png"
    ]  # fmt: skip
    assert all(Image.open(path).width > 100 for path in paths)


def test_ground_truth_left_detections_right(dataset, tmp_path):
    results = [result(0, 0.9), result(0, 0.2)]
    first, sheet = pictures.save_pictures(dataset, results, tmp_path / "out", num=1)
    picture = Image.open(first)
    half, height = picture.width // 2, picture.height
    sides = ((0, 0, half - 4, height), (half + 4, 0, picture.width, height))
    left, right = (colors(picture.crop(side)) for side in sides)
    cat, dog = class_color(0), class_color(1)
    assert cat in left and dog not in left  # category 8 of the results is class 1
    assert dog in right and cat not in right


def test_low_scores_are_not_drawn_and_a_file_can_be_given(dataset, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([result(0, 0.4)]))
    drawn = []
    for threshold in (0.5, 0.3):
        args = ["--results", str(tmp_path / "results.json"), "--dataset", dataset, "--num", "1"]
        args += ["--output", str(tmp_path / str(threshold)), "--score-thresh", str(threshold)]
        drawn.append(class_color(1) in colors(Image.open(pictures.main(args)[0])))
    assert drawn == [False, True]


def test_masks_are_drawn_on_both_sides_or_on_none(dataset, tmp_path):
    rle = pictures.mask_util.encode(np.asfortranarray(np.ones((40, 60), dtype=np.uint8)))
    plain = Image.open(pictures.save_pictures(dataset, [result(0, 0.9)], tmp_path / "a", num=1)[0])
    masks = Image.open(pictures.save_pictures(dataset, [result(0, 0.9, segmentation=rle)], tmp_path / "b", num=1)[0])
    inside = (int(20 * 4.0), 20 + int(25 * 4.0))  # the centre of the object, enlarged 4 times, below the title
    blended = tuple(round(0.55 * grey + 0.45 * c) for grey, c in zip(GREY, class_color(0)))
    assert plain.getpixel(inside) == GREY
    assert masks.getpixel(inside) == blended


def test_boxes_are_drawn_at_their_place():
    item = {"box": [4, 10, 14, 20], "class_index": 0, "label": ""}
    canvas = np.asarray(draw_objects(Image.new("RGB", (30, 30), GREY), [item], scale=2.0))
    at = np.argwhere((canvas == class_color(0)).all(axis=2) & (np.arange(60)[:, None] >= 22))  # below the label
    assert at.max(axis=0).tolist() == [39, 27] and at[:, 1].min() == 8
    assert (canvas[26, 12] == GREY).all()


def test_boxes_outside_the_image_and_of_no_size_do_not_fail():
    boxes = [[-50, -50, -10, -10], [5, 5, 5, 5], [100, 100, 90, 90]]
    items = [{"box": box, "class_index": k, "label": "a long name"} for k, box in enumerate(boxes)]
    assert draw_objects(Image.new("RGB", (20, 20)), items).size == (20, 20)


def test_panels_of_different_height():
    row = side_by_side([Image.new("RGB", (10, 20)), Image.new("RGB", (10, 30))], ["a", "b"])
    assert row.height == 50 and row.width == 24


def test_choice_of_images():
    assert pictures.choose_evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert pictures.choose_evenly(list(range(3)), 12) == [0, 1, 2]
    assert pictures.choose_evenly([], 3) == []
    with pytest.raises(ValueError, match="num must be 1 or more, got 0"):
        pictures.choose_evenly([1], 0)


class Detector(torch.nn.Module):
    """Finds one dog at (10, 20) in every image."""

    def forward(self, batch):
        assert not self.training and batch[0]["image"].shape[0] == 3
        found = Instances((40, 60), pred_boxes=Boxes(torch.tensor([[10.0, 20.0, 30.0, 30.0]])))
        found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([1])
        return [{"instances": found}]


def test_pictures_of_a_model(dataset, tmp_path):
    def mapper(record):
        return {**record, "image": torch.zeros(3, 40, 60)}

    args = (dataset, tmp_path / "out", 1)
    from_model = pictures.save_pictures_of_model(Detector(), mapper, *args)[0]
    from_results = pictures.save_pictures(dataset, [result(0, 0.9)], tmp_path / "b", 1)[0]
    assert np.array_equal(Image.open(from_model), Image.open(from_results))


@pytest.mark.parametrize("args, message", [
    ([], "give either --config-file"),
    (["--config-file", "a.yaml", "--results", "b.json"], "give either --config-file"),
    (["--results", "b.json"], "--results needs --dataset"),
    (["--results", "b.json", "--json", "c.json"], "belong together"),
    (["--results", "b.json", "--dataset", "a", "--beside", "X", "1"], "--beside needs --config-file"),
])  # fmt: skip
def test_wrong_arguments(args, message, capsys):
    with pytest.raises(SystemExit):
        pictures.main(args)
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Two images in COCO format and random weights of the quick Faster R-CNN for their two classes."""
    folder = tmp_path_factory.mktemp("quick")
    images = [{"id": k, "file_name": f"{k}.png", "width": 60, "height": 40} for k in (1, 2)]
    for image in images:
        Image.new("RGB", (60, 40), GREY).save(folder / image["file_name"])
    item = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 20, 20, 10], "area": 200, "iscrowd": 0}
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    coco = {"images": images, "annotations": [item], "categories": categories}
    (folder / "val.json").write_text(json.dumps(coco))
    overrides = ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.DEVICE", "cpu"]
    model = open_experiment(os.path.join(ROOT, QUICK + ".yaml"), overrides).build_model()
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return folder


@pytest.mark.parametrize("extension", ["yaml", "py"])
def test_command_with_a_config(quick_run, tmp_path, extension):
    args = ["--config-file", os.path.join(ROOT, f"{QUICK}.{extension}"), "--output", str(tmp_path)]
    args += ["--json", str(quick_run / "val.json"), "--images", str(quick_run), "--score-thresh", "0.06"]
    paths = pictures.main([*args, "--weights", str(quick_run / "model.pth")])
    assert [os.path.basename(path) for path in paths] == ["00_1.png", "01_2.png", "contact_sheet.png"]
    with pytest.raises(SystemExit, match="--weights is missing"):
        pictures.main(args)


def test_what_the_weights_find_with_other_settings_is_drawn_beside(quick_run, tmp_path):
    args = ["--config-file", os.path.join(ROOT, f"{QUICK}.yaml"), "--weights", str(quick_run / "model.pth"), "--num", "1"]
    args += ["--json", str(quick_run / "val.json"), "--images", str(quick_run), "--score-thresh", "0.06"]
    alone = Image.open(pictures.main([*args, "--output", str(tmp_path / "a")])[0])
    words = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.99"]
    both = Image.open(pictures.main([*args, "--beside", *words, "--output", str(tmp_path / "b")])[0])
    assert both.height == alone.height and both.width > 1.4 * alone.width
    strip = np.asarray(alone), np.asarray(both)[:, : alone.width]
    assert np.array_equal(*strip), "truth and the first detections are as they are alone"
    assert colors(both.crop((alone.width + 4, 30, both.width - 4, both.height))) == {GREY}, "a threshold of 0.99: nothing"


def test_names_that_no_font_has_are_the_category_ids(dataset, tmp_path, monkeypatch, caplog):
    def drawn(names, folder):
        metadata = MetadataCatalog.get(dataset)
        MetadataCatalog.remove(dataset)
        MetadataCatalog.get(dataset).set(**{**metadata.as_dict(), "name": dataset, "thing_classes": names})
        return np.asarray(Image.open(pictures.save_pictures(dataset, [result(0, 0.9)], tmp_path / folder, num=1)[0]))

    monkeypatch.setattr(fonts, "_fonts", lambda given: ())
    fonts._font_with.cache_clear()
    unknown, ids = drawn(["圆盘", "方块"], "unknown"), drawn(["id 7", "id 8"], "ids")
    fonts._font_with.cache_clear()
    assert np.array_equal(unknown, ids) and "id 7 is 圆盘, id 8 is 方块" in caplog.text
