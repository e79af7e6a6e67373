"""The mistakes of an evaluation: matched as pycocotools does, counted, and put on a page on which names are text."""

import copy
import csv
import importlib
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation.coco_data import random_dataset, random_results
from evaluation.conftest import model_outputs
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2_balanced.evaluation import COCODetectionEvaluator
from d2_balanced.evaluation.coco_metrics import evaluate_coco
from d2_balanced.evaluation.detections import internal_detections
from d2_balanced.evaluation.errors import extras
from d2_balanced.evaluation.errors.compare import write_comparison
from d2_balanced.evaluation.errors.curves import score_curves
from d2_balanced.evaluation.errors.match import KINDS, match
from d2_balanced.evaluation.errors.tally import by_class, by_image, by_size, kinds_of, totals
from d2_balanced.evaluation.errors.write import find_mistakes, write_mistakes
from d2_balanced.evaluation.ground_truth import GroundTruth
from d2_balanced.evaluation.write_results import without_nan
from d2_balanced.utils.errors import DataError, InstallError

KIND_NAMES = list(KINDS)


def case(seed, crowds=True, **sizes):
    """``(GroundTruth, internal detections)`` of random data."""
    coco = random_dataset(seed, **sizes)
    if not crowds:
        coco["annotations"] = [a for a in coco["annotations"] if not a["iscrowd"]]
    truth = GroundTruth(coco)
    return truth, internal_detections(truth, random_results(seed, coco)).detections


def mistakes_of(truth, detections, score=None):
    return find_mistakes(truth, detections, evaluate_coco(truth, detections), score)


def by_pycocotools(truth, detections):
    """``(right, wrong, found)``: sorted (image, class, score) of detections, (image, class) of found objects."""
    dataset = {"images": truth.images, "categories": [{"id": k} for k in range(len(truth.class_names))]}
    coco, found = COCO(), COCO()
    coco.dataset = copy.deepcopy({**dataset, "annotations": truth.annotations})
    records = [{**d, "id": n, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0} for n, d in enumerate(detections, 1)]
    found.dataset = {**dataset, "annotations": records}
    coco.createIndex()
    found.createIndex()
    evaluation = COCOeval(coco, found, "bbox")
    evaluation.params.areaRng, evaluation.params.iouThrs = evaluation.params.areaRng[:1], np.array([0.5])
    evaluation.evaluate()
    right, wrong, objects = [], [], []
    for each in filter(None, evaluation.evalImgs):
        place = each["image_id"], each["category_id"]
        for score, of, ignored in zip(each["dtScores"], each["dtMatches"][0], each["dtIgnore"][0]):
            if not ignored:
                (right if of else wrong).append((*place, score))
        objects += [place for of, ignored in zip(each["gtMatches"][0], each["gtIgnore"]) if of and not ignored]
    return sorted(right), sorted(wrong), sorted(objects)


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_pycocotools(seed):
    truth, detections = case(seed)
    matches = match(truth, detections)
    rows = [*zip(matches.image.tolist(), matches.label.tolist(), matches.score.tolist())]
    right = sorted(row for row, kind in zip(rows, matches.kind) if kind < 0)
    wrong = sorted(row for row, kind in zip(rows, matches.kind) if kind >= 0)
    found = matches.found_by >= 0
    objects = sorted(zip(matches.object_image[found].tolist(), matches.object_label[found].tolist()))
    assert (right, wrong, objects) == by_pycocotools(truth, detections)
    assert right and wrong and len(rows) < len(detections), "some lie in crowds"
    hits = np.flatnonzero(matches.kind < 0)
    assert (matches.found_by[matches.target[hits]] == hits).all()


def iou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    w, h = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    inside = max(w, 0) * max(h, 0)
    return inside / (aw * ah + bw * bh - inside)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_are_those_of_the_definition(seed):
    matches = match(*case(seed))
    for d in np.flatnonzero(matches.kind >= 0):
        near = [(iou(matches.box[d], matches.object_box[o]), matches.object_label[o] == matches.label[d],
                 matches.found_by[o] >= 0) for o in np.flatnonzero(matches.object_image == matches.image[d])]
        own = max((overlap for overlap, same, _ in near if same), default=0)
        other = max((overlap for overlap, same, _ in near if not same), default=0)
        taken = max((overlap for overlap, same, used in near if same and used), default=0)
        expected = ("location" if 0.1 <= own <= 0.5 else "other class" if other >= 0.5 else "duplicate" if taken >= 0.5
                    else "background" if max(own, other) <= 0.1 else "both")
        assert KIND_NAMES[matches.kind[d]] == expected


def test_the_counts_are_tidecvs_and_its_costs_are_there():
    pytest.importorskip("tidecv", reason="tidecv is an extra: pip install 'd2_balanced[errors]'")
    truth, detections = case(1, crowds=False, num_images=30)
    matches = match(truth, detections)
    counted = kinds_of(matches, 0, matches.label != len(truth.class_names) - 1)  # which has no objects
    from tidecv import TIDE

    seen = {}
    evaluate = TIDE.evaluate

    def remember(self, *words, **more):
        seen["run"] = evaluate(self, *words, **more)
        return seen["run"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TIDE, "evaluate", remember)
        costs = extras.tide_errors(truth, detections)
    counts = {type_.short_name: number for type_, number in seen["run"].count_errors().items()}
    names = {name: kind for name, kind in extras.TIDE_KINDS.items() if name != "Miss"}
    assert {kind: counts[name] for name, kind in names.items()} == counted
    assert costs["AP50"] == pytest.approx(evaluate_coco(truth, detections).ap(50), abs=0.5)
    assert set(costs) == {*extras.TIDE_KINDS.values(), "false positives", "misses", "AP50"}


def test_tidecv_is_not_asked_about_nothing():
    truth, detections = case(1)
    assert extras.tide_errors(truth, []) is None
    assert extras.tide_errors(GroundTruth({**random_dataset(1), "annotations": []}), detections) is None


@pytest.mark.parametrize("seed", range(2))
def test_curves_count_what_is_left_at_each_score(seed):
    truth, detections = case(seed)
    matches = match(truth, detections)
    curves = score_curves(matches, len(truth.class_names))
    for s in (0, 13, 50, 99, 100):
        left = [d for d in detections if d["score"] >= curves.scores[s]]
        fewer = match(truth, left)  # what has lower scores takes nothing from what has higher ones
        for k in range(len(truth.class_names)):
            hits, objects = ((fewer.kind < 0) & (fewer.label == k)).sum(), (matches.object_label == k).sum()
            all_found = (fewer.label == k).sum()
            if not objects:
                assert np.isnan([curves.precision[k, s], curves.recall[k, s], curves.f1[k, s]]).all()
                continue
            assert curves.recall[k, s] == hits / objects
            assert curves.f1[k, s] == 2 * hits / (all_found + objects)
            assert curves.precision[k, s] == hits / all_found if all_found else np.isnan(curves.precision[k, s])
    mean = np.nanmean(curves.f1[:-1], axis=0)
    assert curves.best == curves.scores[mean.argmax()]


def test_counts_by_class_size_and_image_add_up():
    m = mistakes_of(*case(3))
    all_of, kinds = totals(m.matches, m.score), kinds_of(m.matches, m.score)
    tables = [by_class(m.matches, m.score, m.names, m.metrics, m.curves), by_size(m.matches, m.score, m.metrics),
              by_image(m.matches, m.score, m.ground_truth)]
    for rows in tables:
        for name in ("objects", "found", "missed", "false"):
            assert sum(row[name] for row in rows) == all_of[name]
    for rows in tables[:2]:
        assert {kind: sum(row[kind] for row in rows) for kind in KINDS} == kinds
    assert all_of["found"] + all_of["missed"] == all_of["objects"] and sum(kinds.values()) == all_of["false"]
    assert 0 < all_of["missed, nothing near"] < all_of["missed"]


def test_the_confusion_matrix_has_objects_in_rows_and_leaves_crowds_out():
    pytest.importorskip("supervision", reason="supervision is an extra: pip install 'd2_balanced[errors]'")
    box, far, crowd = [10, 10, 30, 30], [80, 80, 30, 30], [60, 10, 60, 60]
    coco = {"images": [{"id": 1, "width": 160, "height": 160}, {"id": 2, "width": 160, "height": 160}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": box, "id": 1},
                            {"image_id": 2, "category_id": 2, "bbox": far, "id": 2},
                            {"image_id": 1, "category_id": 1, "bbox": crowd, "id": 3, "iscrowd": 1}]}  # fmt: skip
    truth = GroundTruth(coco)
    detections = [{"image_id": 0, "category_id": 1, "bbox": box, "score": 0.9},  # a taken for b
                  {"image_id": 0, "category_id": 0, "bbox": [70, 20, 20, 20], "score": 0.9},  # in the crowd
                  {"image_id": 0, "category_id": 0, "bbox": far, "score": 0.9},  # nothing there
                  {"image_id": 1, "category_id": 1, "bbox": far, "score": 0.4}]  # below the score  # fmt: skip
    assert extras.confusion_matrix(match(truth, detections), truth, 0.5).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.said = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.said.append(data)


BAD = "<script>alert(1)</script>"


def evil_case(tmp_path):
    """Class and file names that are markup, a formula, or both."""
    coco = random_dataset(2, num_images=3)
    for number, category in enumerate(coco["categories"]):
        category["name"] = ["=1+1", BAD, "\"><img src=x onerror=y>", "a\nb"][number]
    for number, image in enumerate(coco["images"]):
        image["file_name"] = ["=x.png", "&<b onload=z>.png", "fine.png"][number]
        Image.new("RGB", (160, 160), (90, 90, 90)).save(tmp_path / image["file_name"])
    truth = GroundTruth(coco)
    truth.image_root = str(tmp_path)
    return truth, internal_detections(truth, random_results(2, coco)).detections


def test_names_are_text_on_the_page_and_in_the_tables(tmp_path):
    truth, detections = evil_case(tmp_path)
    first, second = mistakes_of(truth, detections), mistakes_of(truth, detections[:-9], 0.9)
    one = write_mistakes(tmp_path / "out", first, detections, BAD)
    for path in (one, write_comparison(tmp_path / "two", first, second, (BAD, "=2"))):
        text = open(path, encoding="utf-8").read()
        page = Tags(text)
        assert not {"script", "b", "link", "iframe"} & set(page.tags) and "img" in page.tags
        assert not {"onerror", "onload"} & set(page.attributes) and 'src="data:image/jpeg;base64,' in text
        assert BAD in "".join(page.said) and "http" not in text.replace("http://www.w3.org", "")
    for path in (tmp_path / "out").glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert cells and not [cell for cell in cells if cell.startswith(("=", "@")) or "\r" in cell]
    assert "'=x.png" in (tmp_path / "out" / "images.csv").read_text()


@pytest.mark.parametrize("empty", ["detections", "objects", "both", "images"])
def test_nothing_to_show_is_said(tmp_path, empty):
    coco = random_dataset(4)
    if empty in ("objects", "both", "images"):
        coco["annotations"] = []
    if empty == "images":
        coco["images"] = []
    truth = GroundTruth(coco)
    detections = [] if empty != "objects" else internal_detections(truth, random_results(4, random_dataset(4))).detections
    m = mistakes_of(truth, detections)
    page = open(write_mistakes(tmp_path, m, detections, "nothing"), encoding="utf-8").read()
    assert m.score == 0 and "costs in AP50 is not shown" in page
    if empty != "detections":
        assert "no class has objects" in page
    assert write_comparison(tmp_path, m, m, ("a", "b"))


def test_images_that_cannot_be_read_are_named(tmp_path):
    truth, detections = case(1)
    page = open(write_mistakes(tmp_path, mistakes_of(truth, detections), detections, "x", 2), encoding="utf-8").read()
    assert page.count("Not shown. image file ") == 2


def test_missing_libraries_are_said_with_the_command_that_installs_them(tmp_path, monkeypatch):
    import_module = importlib.import_module

    def without(name, *more):
        if name in ("supervision", "tidecv"):
            raise ImportError(f"No module named {name!r}")
        return import_module(name, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    truth, detections = case(1)
    with pytest.raises(InstallError, match="tidecv"):
        extras.tide_errors(truth, detections)
    page = open(write_mistakes(tmp_path, mistakes_of(truth, detections), detections, "x", 0), encoding="utf-8").read()
    text = "".join(Tags(page).said)
    assert text.count("pip install 'd2_balanced[errors]'") == 2 and "polyline" in page
    assert not (tmp_path / "confusion.csv").exists() and json.loads((tmp_path / "errors.json").read_text())["tide"] is None


def test_many_classes_get_ten_curves_and_pairs_in_place_of_the_matrix(tmp_path):
    pytest.importorskip("supervision", reason="supervision is an extra: pip install 'd2_balanced[errors]'")
    truth, detections = case(5, num_images=40, num_classes=30)
    page = open(write_mistakes(tmp_path, mistakes_of(truth, detections), detections, "x", 0), encoding="utf-8").read()
    assert page.count("<polyline") == 2 * 11 and "found as" in page and "The 10 classes with the lowest AP" in page
    assert len((tmp_path / "confusion.csv").read_text().splitlines()) == 32


def test_two_evaluations_are_compared_object_by_object(tmp_path):
    truth, detections = case(6, crowds=False)
    first, second = mistakes_of(truth, detections, 0.0), mistakes_of(truth, detections, 0.6)
    write_comparison(tmp_path, first, second, ("a", "b"), pictures=0)
    with open(tmp_path / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, m in ((1, first), (2, second)):
        assert sum(int(row[f"missed {number}"]) for row in rows) == totals(m.matches, m.score)["missed"]
        assert sum(int(row[f"false {number}"]) for row in rows) == totals(m.matches, m.score)["false"]
    other = mistakes_of(*case(7))
    with pytest.raises(DataError, match="different objects"):
        write_comparison(tmp_path, first, other, ("a", "b"))


def test_every_evaluation_writes_the_page_and_goes_on_without_it(registered, tmp_path, monkeypatch, caplog):
    coco = random_dataset(1)
    inputs, outputs = model_outputs(coco, random_results(1, coco))
    name = registered(coco)

    def evaluate(folder, **settings):
        evaluator = COCODetectionEvaluator(name, str(tmp_path / folder), **settings)
        evaluator.process(inputs, outputs)
        return without_nan(evaluator.evaluate())

    plain = evaluate("plain")
    assert evaluate("with", errors=True) == plain
    files = {path.name for path in (tmp_path / "with" / "inference" / name / "errors").iterdir()}
    assert {"errors.html", "errors.json", "images.csv", "per_class.csv", "per_size.csv", "score_curves.csv"} <= files
    assert not (tmp_path / "plain" / "inference" / name / "errors").exists()
    monkeypatch.setattr("d2_balanced.evaluation.coco.find_mistakes", lambda *words: 1 / 0)
    assert evaluate("faulty", errors=True) == plain
    assert "was not written; training goes on. Again: d2_balanced errors RUN" in caplog.text
