"""The generated data set: exact, reproducible, hard in the ways it promises, and careful with folders."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from commands import refusal
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from d2_balanced.data import builtin, generated, scene
from d2_balanced.data.check_dataset import check_dataset
from d2_balanced.data.outlines import CLASS_NAMES
from d2_balanced.data.raster import box_of
from d2_balanced.utils.errors import DataError

SMALL = {"train_images": 6, "val_images": 3, "size": 128, "seed": 5}
PIXELS_SHA256 = "d9fbb2ed1fa12064cb2168c8336d56213ef146a33452930681d94b6d33287bf9"
ANNOTATIONS_SHA256 = "ca6e0a7ed5f6c9f881ce14b9170af37636ea97988dc035c66e70f45522c6b738"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("data") / "generated")
    assert generated.generate(path, **SMALL)
    return path


@pytest.fixture(scope="module")
def scenes():
    return [scene.draw_scene(0, 0, index) for index in range(60)]


def digest(folder):
    """(sha256 of all decoded pixels, sha256 of the annotation files)."""
    pixels, annotations = hashlib.sha256(), hashlib.sha256()
    for split in ("train", "val"):
        for name in sorted(os.listdir(os.path.join(folder, split))):
            with Image.open(os.path.join(folder, split, name)) as image:
                assert image.mode == "RGB"
                pixels.update(np.asarray(image).tobytes())
        with open(os.path.join(folder, "annotations", split + ".json"), "rb") as f:
            annotations.update(f.read())
    return pixels.hexdigest(), annotations.hexdigest()


def test_same_bytes_on_every_machine(folder):
    assert digest(folder) == (PIXELS_SHA256, ANNOTATIONS_SHA256)


def test_seeds_and_splits_differ_and_counts_do_not_matter(folder, tmp_path):
    generated.generate(str(tmp_path / "more"), **{**SMALL, "train_images": 7})
    generated.generate(str(tmp_path / "other"), **{**SMALL, "seed": 6})

    def pixels(path):
        return np.asarray(Image.open(os.path.join(str(path), "000001.png"))).astype(int)

    first = pixels(folder + "/train")
    np.testing.assert_array_equal(first, pixels(tmp_path / "more" / "train"))
    for other in (tmp_path / "other" / "train", folder + "/val"):
        assert np.abs(first - pixels(other)).mean() > 10


def test_boxes_areas_and_polygons_are_those_of_the_visible_mask(scenes):
    assert sum(len(objects) for _, objects in scenes[:10]) > 10
    for pixels, objects in scenes[:10]:
        owned = np.zeros(pixels.shape[:2], dtype=int)
        for class_index, mask in objects:
            annotation = generated._annotation(1, class_index, mask)
            polygons = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], *mask.shape))
            np.testing.assert_array_equal(coco_mask.decode(polygons).astype(bool), mask)
            assert annotation["bbox"] == coco_mask.toBbox(polygons).tolist()
            assert annotation["area"] == coco_mask.area(polygons)
            owned += mask
        assert owned.max(initial=0) <= 1  # a pixel belongs to one object


def test_an_object_stands_out_from_what_is_around_its_box(scenes):
    """Pictures and annotations belong together: colours inside a mask differ from those just outside of it."""
    gaps = []
    for pixels, objects in scenes:
        taken = np.any([m for _, m in objects], axis=0) if objects else np.zeros(pixels.shape[:2], bool)
        for _, mask in objects:
            around = np.zeros_like(mask)
            around[1:-1, 1:-1] = mask[:-2, 1:-1] | mask[2:, 1:-1] | mask[1:-1, :-2] | mask[1:-1, 2:]
            around &= ~taken
            if around.sum() > 10:
                gaps.append(np.abs(pixels[mask].mean(0) - pixels[around].mean(0)).mean())
    assert len(gaps) > 100 and np.mean(gaps) > scene.MIN_CONTRAST


def test_it_has_the_difficulties_it_promises(scenes):
    objects = [objects for _, objects in scenes]
    assert {pixels.shape for pixels, _ in scenes} == {(192, 256, 3), (256, 192, 3)}
    counts = [len(o) for o in objects]
    assert min(counts) == 0 and max(counts) > 15 and max(counts) <= 20
    boxes = [[box_of(mask) for _, mask in o] for o in objects]
    sizes = np.sqrt([w * h for image in boxes for _, _, w, h in image])
    assert sizes.min() < 13 and sizes.max() > 120
    assert {c for o in objects for c, _ in o} == set(range(len(CLASS_NAMES)))
    overlaps = sum(_overlap(a, b) > 0.1 for image in boxes for k, a in enumerate(image) for b in image[:k])
    assert overlaps > 20


def _overlap(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


@pytest.mark.parametrize("level, hidden", [("mild", 0.2), ("hard", 0.4)])
def test_occlusion_has_its_limit(level, hidden):
    """Many shapes are partly hidden or cut off, none so much that finding it would be luck; areas are counted right."""
    shares = []
    for index in range(30):
        painted = scene.paint_scene(0, 0, index, level=level)
        visible = [int((painted.owner == k).sum()) for k in range(len(painted.classes))]
        assert visible == painted.visible_areas
        shares += [v / full for v, full in zip(visible, painted.full_areas)]
    assert min(shares) >= scene.LEVELS[level].visible and max(shares) == 1
    assert np.mean(np.array(shares) < 0.95) > hidden


def test_hard_pictures_have_more_look_alikes():
    mild, hard = (
        sum(scene.paint_scene(0, 0, index, level=level).classes.count(-1) for index in range(30)) for level in scene.LEVELS
    )
    assert hard > 2 * mild


def test_levels_are_not_taken_for_each_other(tmp_path):
    folder, small = str(tmp_path / "hard"), {**SMALL, "train_images": 1, "val_images": 1, "size": 64}
    assert generated.generate(folder, **small, level="hard") and not generated.generate(folder, **small, level="hard")
    with pytest.raises(DataError, match="holds a data set of other settings.*'level': 'hard'"):
        generated.generate(folder, **small)
    with pytest.raises(ValueError, match="level must be one of mild, hard, got 'harder'"):
        generated.generate(str(tmp_path / "other"), **small, level="harder")


def test_some_pictures_show_look_alikes_only():
    painted = [scene.paint_scene(0, 0, index) for index in range(60)]
    assert any(p.classes and max(p.classes) < 0 for p in painted)
    assert any(not p.objects() for p in painted)
    assert sum(p.classes.count(-1) for p in painted) > 20


def test_check_finds_nothing_to_complain_about(folder):
    for split in ("train", "val"):
        report = check_dataset(generated.annotation_file(folder, split), os.path.join(folder, split), len(CLASS_NAMES),
                               mask_format="polygon", images="decode")
        assert report.errors == []


def test_generating_again_writes_nothing(folder):
    def times():
        names = ("settings.json", "train", "train/000001.png", "annotations/val.json")
        return [os.stat(os.path.join(folder, name)).st_mtime_ns for name in names]

    before = times()
    assert not generated.generate(folder, **SMALL)
    assert before == times()
    assert [p for p in os.listdir(os.path.dirname(folder)) if "unfinished" in p] == []


def test_it_refuses_other_settings_other_content_and_half_a_set(folder, tmp_path):
    with pytest.raises(DataError, match="other settings.*'seed': 5.*'seed': 6"):
        generated.generate(folder, **{**SMALL, "seed": 6})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="holds no generated data set"):
        generated.generate(str(tmp_path / "mine"), **SMALL)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]
    generated.generate(str(tmp_path / "half"), **SMALL)
    os.remove(tmp_path / "half" / "train" / "000002.png")
    with pytest.raises(DataError, match="incomplete: 5 images of 6"):
        generated.generate(str(tmp_path / "half"), **SMALL)


def test_several_processes_may_generate_it_at_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda _: generated.generate(str(tmp_path / "g"), **SMALL), range(3)))
    assert sum(written) >= 1 and os.listdir(tmp_path) == ["g"]
    assert not generated.generate(str(tmp_path / "g"), **SMALL)


def test_a_folder_drawn_by_an_older_version_is_not_used_silently(tmp_path):
    generated.generate(str(tmp_path / "g"), **{**SMALL, "train_images": 2, "val_images": 1})
    generated.ensure(str(tmp_path / "g"))  # other settings are the user's choice
    settings = json.loads((tmp_path / "g" / "settings.json").read_text())
    (tmp_path / "g" / "settings.json").write_text(json.dumps({**settings, "version": generated.VERSION - 1}))
    with pytest.raises(DataError, match="other settings"):
        generated.ensure(str(tmp_path / "g"))


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(generated, "_write_split", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generated.generate(str(tmp_path / "generated"), **SMALL)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key, value", [("size", 32), ("train_images", 0), ("seed", -1), ("val_images", 2.5)])
def test_settings_out_of_range(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"{key} must be an integer.*got {value}"):
        generated.generate(str(tmp_path / "generated"), **{**SMALL, key: value})


def test_command(tmp_path, capsys):
    args = ["--output", str(tmp_path / "g"), "--train-images", "2", "--val-images", "1", "--size", "64"]
    assert generated.main(args) == 0
    assert "2 training and 1 validation images written" in capsys.readouterr().out
    assert generated.main(args) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert "holds a data set of other settings" in refusal(generated.main, *args, "--seed", "3")


def test_registered_names_are_drawn_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(generated.generate, "__kwdefaults__", {**SMALL, "level": "mild"})
    saved = {name: MetadataCatalog.get(name) for name in ("generated_train", "generated_val")}
    functions = {name: DatasetCatalog.pop(name) for name in saved}
    try:
        for name in saved:
            MetadataCatalog.pop(name)
        builtin.register_generated(str(tmp_path))
        assert os.listdir(tmp_path) == []  # nothing before a name is used
        dataset_dicts = DatasetCatalog.get("generated_train")
        assert len(dataset_dicts) == 6 and len(DatasetCatalog.get("generated_val")) == 3
        metadata = MetadataCatalog.get("generated_train")
        assert metadata.thing_classes == list(CLASS_NAMES) and metadata.evaluator_type == "coco"
        with open(metadata.json_file) as f:
            assert len(json.load(f)["images"]) == 6
        assert os.path.isfile(dataset_dicts[0]["file_name"])
    finally:
        for name in saved:
            DatasetCatalog.pop(name, None)
            DatasetCatalog.register(name, functions[name])
            MetadataCatalog.pop(name, None)
            MetadataCatalog[name] = saved[name]
