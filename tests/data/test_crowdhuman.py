"""CrowdHuman: what the converter makes of .odgt files, its errors, registration, and what the mapper keeps."""

import copy
import json
import os

import numpy as np
import pytest
from commands import refusal
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from d2_balanced.data import builtin, crowdhuman
from d2_balanced.data.check_dataset import check_registered
from d2_balanced.data.mapper import BalancedMapper, IgnoreRegionMapper, build_mapper
from d2_balanced.utils.errors import DataError
from d2_balanced.config import ConfigError, apply_overrides, check_config, get_balanced_cfg, load_lazy
from d2_balanced.config.refusals import check_refusals_lazy
from d2_balanced.evaluation import build_evaluator
from d2_balanced.modeling.ignore_regions import TargetsWithRegions
from tiny_runs import TINY, checkpoint, quick_config, told, train_net


def person(*box, **more):
    others = {"vbox": [0, 0, 1, 1], "hbox": [0, 0, 1, 1], "extra": {"box_id": 0}}
    return {"tag": "person", "fbox": list(box), **others, **more}


RECORDS = [
    {"ID": "273271,c9db000d5146c15", "gtboxes": [
        person(-5, 10, 30, 60),
        person(40, 10, 20, 50, extra={"ignore": 1}),
        {"tag": "mask", "fbox": [60, 0, 40, 30], "extra": {"ignore": 1}},
        {"tag": "mask", "fbox": [0, 0, 10, 10]},
        person(50, 20, 25.5, 40, extra={"ignore": 0, "unsure": 1}),
    ]},
    {"ID": "282555,2f1c30001d5b1d8d", "gtboxes": [person(5, 5, 20, 30)]},
]  # fmt: skip


def write(root, records=RECORDS, split="train", images=True):
    """A CrowdHuman folder below ``root``; returns (odgt file, image folder)."""
    folder = os.path.join(root, "crowdhuman", "Images")
    os.makedirs(folder, exist_ok=True)
    odgt = os.path.join(root, "crowdhuman", f"annotation_{split}.odgt")
    with open(odgt, "w") as file:
        file.write("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    for record in records if images else ():
        Image.new("RGB", (100, 80)).save(os.path.join(folder, record["ID"] + ".jpg"))
    return odgt, folder


def test_conversion(tmp_path):
    coco = crowdhuman.convert_crowdhuman(*write(str(tmp_path)))
    assert coco["images"] == [
        {"id": k, "file_name": f"{record['ID']}.jpg", "width": 100, "height": 80} for k, record in enumerate(RECORDS, 1)
    ]
    assert [c["name"] for c in coco["categories"]] == ["person"]
    assert [(a["image_id"], a["bbox"], a["iscrowd"]) for a in coco["annotations"]] == [
        (1, [-5, 10, 30, 60], 0),
        (1, [40, 10, 20, 50], 1),
        (1, [60, 0, 40, 30], 1),
        (1, [0, 0, 10, 10], 1),
        (1, [50, 20, 25.5, 40], 0),
        (2, [5, 5, 20, 30], 0),
    ]
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert coco["annotations"][4]["area"] == 25.5 * 40


def test_command(tmp_path, capsys):
    odgt, images = write(str(tmp_path))
    arguments = ["--odgt", odgt, "--images", images, "--output", str(tmp_path / "out" / "train.json")]
    assert crowdhuman.main(arguments) == 0
    assert "2 images, 3 persons, 3 ignore regions" in capsys.readouterr().out
    with open(tmp_path / "out" / "train.json") as file:
        assert json.load(file) == crowdhuman.convert_crowdhuman(odgt, images)
    with open(odgt, "a") as file:
        file.write("{\n")
    assert "annotation_train.odgt, line 3: not JSON" in refusal(crowdhuman.main, *arguments)


GOOD = RECORDS[1]


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"ID": "a", "gtboxes": [', ["line 2", "not JSON"]),
        ("[1, 2]", ["line 2", "expected a JSON object"]),
        ({"gtboxes": []}, ["line 2", "no 'ID'", "gtboxes"]),
        ({"ID": "a"}, ["line 2", "no 'gtboxes'"]),
        ({"ID": "a", "gtboxes": {}}, ["line 2", "'gtboxes' must be a list"]),
        ({"ID": "a", "gtboxes": [{"fbox": [1, 2, 3, 4]}]}, ["line 2, gtboxes[0]", "no 'tag'"]),
        ({"ID": "a", "gtboxes": [person(1, 2, 3, 4), {"tag": "person"}]}, ["line 2, gtboxes[1]", "no 'fbox'"]),
        ({"ID": "a", "gtboxes": [person(1, 2, 3)]}, ["line 2, gtboxes[0]", "four numbers", "[1, 2, 3]"]),
        ({"ID": "a", "gtboxes": [person(1, 2, 3, float("nan"))]}, ["line 2, gtboxes[0]", "four numbers", "nan"]),
        ({"ID": "a", "gtboxes": [person(1, 2, "3", 4)]}, ["line 2, gtboxes[0]", "four numbers"]),
        ({"ID": GOOD["ID"], "gtboxes": []}, ["line 2", "line 1 already"]),
        ({"ID": "a", "gtboxes": [person(1, 2, 0, 4)] * 2}, ["without width or height", "line 2"]),
        ({"ID": "a", "gtboxes": [person(1, 2, 3, -4)] * 2}, ["without width or height", "line 2", "-4"]),
    ],
)
def test_bad_lines_are_named_with_file_and_line(tmp_path, line, words):
    odgt, images = write(str(tmp_path), [GOOD, line], images=False)
    for name in (GOOD["ID"], "a"):
        Image.new("RGB", (100, 80)).save(os.path.join(images, name + ".jpg"))
    with pytest.raises(DataError) as error:
        crowdhuman.convert_crowdhuman(odgt, images)
    assert all(word in str(error.value) for word in ["annotation_train.odgt", *words]), str(error.value)


def test_a_few_boxes_without_area_are_left_out_with_a_warning(tmp_path, caplog):
    records = [{"ID": "a", "gtboxes": [person(1, 1, 5, 5)] * 1500 + [person(1, 2, 0, 4)]}]
    coco = crowdhuman.convert_crowdhuman(*write(str(tmp_path), records))
    assert len(coco["annotations"]) == 1500
    assert "1 box(es) without width or height: line 1, fbox [1, 2, 0, 4]" in caplog.text


def test_missing_files(tmp_path):
    odgt, images = write(str(tmp_path))
    os.remove(os.path.join(images, RECORDS[1]["ID"] + ".jpg"))
    with pytest.raises(DataError, match=r"1 of 2 images are not in .*Images.*line 2, 282555"):
        crowdhuman.convert_crowdhuman(odgt, images)
    with open(os.path.join(images, RECORDS[1]["ID"] + ".jpg"), "wb") as file:
        file.write(b"no image")
    with pytest.raises(DataError, match=r"282555.*\.jpg cannot be read"):
        crowdhuman.convert_crowdhuman(odgt, images)
    with pytest.raises(DataError, match="image folder .*nowhere.* does not exist"):
        crowdhuman.convert_crowdhuman(odgt, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"annotation_val\.odgt.*DETECTRON2_DATASETS"):
        crowdhuman.ensure_crowdhuman_json("crowdhuman_val", str(tmp_path))
    (tmp_path / "empty.odgt").write_text("\n")
    with pytest.raises(DataError, match="no image in this file"):
        crowdhuman.convert_crowdhuman(str(tmp_path / "empty.odgt"), images)


@pytest.fixture
def registered(tmp_path):
    """The names, registered for a folder with two training images."""
    write(str(tmp_path))
    names = list(crowdhuman.CROWDHUMAN_SPLITS)
    saved = {name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in names}
    builtin.register_crowdhuman(str(tmp_path))
    yield "crowdhuman_train"
    for name, (function, metadata) in saved.items():
        DatasetCatalog.pop(name)
        DatasetCatalog.register(name, function)
        MetadataCatalog[name] = metadata


def test_registration(registered, tmp_path):
    dataset = DatasetCatalog.get(registered)
    assert [len(image["annotations"]) for image in dataset] == [5, 1]
    assert all(os.path.isfile(image["file_name"]) for image in dataset)
    metadata = MetadataCatalog.get(registered)
    assert metadata.evaluator_type == "crowdhuman" and metadata.thing_classes == ["person"]
    assert metadata.json_file.startswith(str(tmp_path / "crowdhuman" / "coco_format"))
    report = check_registered(registered, 1)
    assert report.errors == [] and report.summary["crowd_annotations"] == 3


def test_conversion_is_kept_until_the_annotations_change(registered, tmp_path, monkeypatch):
    first = crowdhuman.ensure_crowdhuman_json(registered, str(tmp_path))
    with monkeypatch.context() as m:
        m.setattr(crowdhuman, "convert_crowdhuman", None)  # would fail if it were called
        assert crowdhuman.ensure_crowdhuman_json(registered, str(tmp_path)) == first
    write(str(tmp_path), RECORDS[:1])
    assert crowdhuman.ensure_crowdhuman_json(registered, str(tmp_path)) != first


def test_the_evaluator_is_crowdhuman_s_and_takes_more_than_100_detections(registered):
    cfg = get_balanced_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    evaluator = build_evaluator(registered, max_dets=cfg.TEST.DETECTIONS_PER_IMAGE)
    dataset = DatasetCatalog.get(registered)
    many = [{"image_id": 2, "category_id": 0, "bbox": [60, 60, 5, 5], "score": 0.9 - k / 1000} for k in range(150)]
    exact = [{"image_id": 2, "category_id": 0, "bbox": [5, 5, 20, 30], "score": 0.5}]  # the 151st by score
    found = {1: [], 2: many + exact}
    evaluator._predictions = [(image["image_id"], found[image["image_id"]], None) for image in dataset]
    evaluator._kinds = {"bbox"}
    results = evaluator.evaluate()
    assert set(results["crowdhuman"]) == {"AP50", "mMR", "recall", "JI"}
    assert results["crowdhuman"]["recall"] == pytest.approx(100 / 3)
    assert results["bbox"]["AR@300"] > 0 and evaluator.max_dets == 300


def mapped(mapper_class, record, flip, **settings):
    augmentations = [T.ResizeShortestEdge(160, 400), T.RandomFlip(prob=1.0 if flip else 0.0)]
    return mapper_class(is_train=True, augmentations=augmentations, image_format="BGR", **settings)(record)


@pytest.mark.parametrize("mapper_class", [BalancedMapper, IgnoreRegionMapper])
@pytest.mark.parametrize("flip", [False, True])
def test_full_bodies_that_reach_beyond_the_image_train_clipped_or_whole(registered, flip, mapper_class):
    record = copy.deepcopy(DatasetCatalog.get(registered)[0])  # 100 x 80, here twice as large
    boxes = [[-10.5, 5, 40, 90], [70, 20, 50, 30], [-30, -30, 20, 20], [20, 20, 30.5, 40]]  # the third is outside
    record["annotations"] = [
        {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": k, "iscrowd": 0} for k, box in enumerate(boxes)
    ]
    clipped, whole = (mapped(mapper_class, record, flip, clip_boxes=clip)["instances"] for clip in (True, False))
    assert clipped.gt_classes.tolist() == whole.gt_classes.tolist() == [0, 1, 3]
    expected = 2 * np.array([[-10.5, 5, 29.5, 95], [70, 20, 120, 50], [20, 20, 50.5, 60]])
    if flip:
        expected[:, [0, 2]] = 200 - expected[:, [2, 0]]
    np.testing.assert_allclose(whole.gt_boxes.tensor, expected)
    np.testing.assert_allclose(clipped.gt_boxes.tensor, expected.clip(0, [200, 160, 200, 160]))
    assert torch.equal(mapped(mapper_class, record, flip)["instances"].gt_boxes.tensor, clipped.gt_boxes.tensor)


def test_clipping_is_a_key_and_an_argument():
    cfg = get_balanced_cfg()
    assert build_mapper(cfg, True).clip_boxes
    cfg.INPUT.CLIP_BOXES = False
    check_config(cfg)
    assert not build_mapper(cfg, True).clip_boxes
    lazy = load_lazy(quick_config("faster_rcnn", "py"), ["dataloader.train.mapper.clip_boxes=false"])
    assert not instantiate(lazy.dataloader.train.mapper).clip_boxes
    cfg.INPUT.CROP.ENABLED = True
    assert not build_mapper(cfg, True).clip_boxes, "boxes are cropped as boxes"
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ConfigError, match="INPUT.CLIP_BOXES.*INPUT.CROP"):
        build_mapper(cfg, True)
    assert not build_mapper(cfg, False).clip_boxes, "an evaluation crops nothing"


@pytest.mark.parametrize("flip", [False, True])
def test_the_mapper_keeps_crowds_as_regions_that_follow_the_augmentation(registered, flip):
    record = DatasetCatalog.get(registered)[0]
    plain, ours = mapped(DatasetMapper, record, flip), mapped(IgnoreRegionMapper, record, flip)
    assert torch.equal(plain["image"], ours["image"])
    assert torch.equal(plain["instances"].gt_boxes.tensor, ours["instances"].gt_boxes.tensor)
    assert len(ours["instances"]) == 2
    expected = 2 * np.array([[40, 10, 60, 60], [60, 0, 100, 30], [0, 0, 10, 10]])
    if flip:
        expected[:, [0, 2]] = 200 - expected[:, [2, 0]]
    np.testing.assert_array_equal(ours["instances"].ignore_regions.tensor, expected)
    # As the model gets them.
    moved = ours["instances"].to("cpu")
    assert isinstance(moved, TargetsWithRegions)
    assert len(moved.ignore_regions) == 3 and len(moved[:1].ignore_regions) == 3


def test_without_crowds_the_mapper_is_detectron2_s(registered):
    record = DatasetCatalog.get(registered)[1]
    plain, ours = mapped(DatasetMapper, record, False), mapped(IgnoreRegionMapper, record, False)
    assert type(ours["instances"]) is type(plain["instances"])


def test_the_config_key_chooses_the_mapper_and_needs_modules_that_know_regions():
    cfg = get_balanced_cfg()
    assert type(build_mapper(cfg, True)) is BalancedMapper
    cfg.INPUT.IGNORE_REGIONS = True
    assert type(build_mapper(cfg, True)) is IgnoreRegionMapper and type(build_mapper(cfg, False)) is BalancedMapper
    with pytest.raises(ConfigError, match=r"IGNORE_REGIONS.*MODEL\.PROPOSAL_GENERATOR\.NAME: RPN.*BalancedRPN"):
        check_config(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "BalancedRPN"
    with pytest.raises(ConfigError, match=r"IGNORE_REGIONS.*MODEL\.ROI_HEADS\.NAME: Res5ROIHeads.*BalancedROIHeads"):
        check_config(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "BalancedROIHeads"
    check_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(ConfigError, match="IGNORE_REGIONS.*MODEL.META_ARCHITECTURE: RetinaNet"):
        check_config(cfg)


def test_a_lazy_config_with_the_mapper_needs_them_too():
    target = "dataloader.train.mapper._target_=d2_balanced.data.mapper.IgnoreRegionMapper"
    cfg = load_lazy(quick_config("faster_rcnn", "py"))
    check_refusals_lazy(cfg)
    apply_overrides(cfg, [target, "model.proposal_generator._target_=RPN"])
    with pytest.raises(ConfigError, match="IgnoreRegionMapper does not go with model.proposal_generator, .*BalancedRPN"):
        check_refusals_lazy(cfg)
    apply_overrides(cfg, ["model.proposal_generator._target_=BalancedRPN"])
    check_refusals_lazy(cfg)
    cfg = load_lazy(quick_config("retinanet", "py"), [target])
    with pytest.raises(ConfigError, match="IgnoreRegionMapper does not go with model, because it would ignore"):
        check_refusals_lazy(cfg)


def test_a_run_with_ignore_regions_and_crowdhuman_s_metrics(registered, tmp_path):
    """Targets with regions pass through the loader's worker processes; the evaluation is CrowdHuman's."""
    settings = ["INPUT.IGNORE_REGIONS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "BalancedRPN"]
    settings += ["DATALOADER.NUM_WORKERS", 1]
    settings += ["DATASETS.TRAIN", f"('{registered}',)", "DATASETS.TEST", f"('{registered}',)"]
    settings += ["MODEL.ROI_HEADS.NUM_CLASSES", 1, "TEST.DETECTIONS_PER_IMAGE", 300, "TEST.EVAL_PERIOD", 0]
    settings += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "SOLVER.MAX_ITER", 2, "TEST.BEST_METRIC", "crowdhuman/AP50"]
    words = ["--config-file", quick_config("faster_rcnn"), "--output-dir", tmp_path / "run", *TINY, *settings]
    assert train_net(*words) == 0
    assert {"crowdhuman/mMR", "crowdhuman/JI", "bbox/AR@300"} <= set().union(*told(tmp_path / "run"))
    assert checkpoint(tmp_path / "run")["iteration"] == 1
