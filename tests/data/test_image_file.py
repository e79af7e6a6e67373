"""One opening of an image, by the check and by the mapper: EXIF, 16 bits, pages, transparency, resizing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn import HEIGHT, SOUND, WIDTH, annotation, draw, pixels, sound, write
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from d2_balanced.config import get_balanced_cfg
from d2_balanced.data.check_dataset import check_dataset, check_registered, run_checks
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.data.image_file import image_facts, read_image
from d2_balanced.data.input_size import InputSize, input_size_of
from d2_balanced.data.mapper import BalancedMapper, build_mapper
from d2_balanced.utils.errors import DataError

TRANSPOSED = {
    1: None,
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}  # what undoes each orientation


def mapper(is_train=False, **settings):
    return BalancedMapper(is_train=is_train, augmentations=[], image_format="RGB", **settings)


def mapped(path, image):
    record = {"file_name": str(path), "image_id": 1, "width": image.width, "height": image.height}
    return mapper()(record)["image"].numpy().transpose(1, 2, 0)


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path)
    return tmp_path


def report_of(folder, file_name, **settings):
    content = sound()
    content["images"][1]["file_name"] = file_name
    return check_dataset(write(folder, content), str(folder), 2, **settings)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_every_format(tmp_path, suffix, orientation):
    """The check, with and without decoding, and the mapper see the upright image."""
    upright = Image.fromarray(pixels()).resize((12, 8)).resize((WIDTH, HEIGHT))
    method = TRANSPOSED[orientation]
    stored = upright.transpose(getattr(Image, method)) if method else upright
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(
        str(path), exif=exif if suffix == "tif" else exif.tobytes(), **({"lossless": True} if suffix == "webp" else {})
    )
    found = [image_facts(str(path), decode) for decode in (False, True)]
    assert [facts.size for facts in found] == [(WIDTH, HEIGHT)] * 2
    assert found[0].orientation == found[1].orientation
    difference = np.abs(mapped(path, upright).astype(int) - np.asarray(upright))
    assert difference.max() <= (40 if suffix == "jpg" else 0) and difference.mean() < 5


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    """As exiftool writes it into files that have none."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels()).save(str(tmp_path / "a.png"), exif=exif.tobytes())
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert [image_facts(str(tmp_path / "a.png"), decode).size for decode in (False, True)] == [(HEIGHT, WIDTH)] * 2
    assert read_image(str(tmp_path / "a.png"), "RGB").shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    "damaged", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + bytes(range(200))]
)
def test_damaged_exif_is_none(folder, damaged):
    Image.fromarray(pixels()).save(str(folder / "b.jpg"), exif=damaged)
    for images in ("decode", "headers"):
        report = report_of(folder, "b.jpg", images=images)
        assert (report.errors, report.warnings) == ([], [])
    assert read_image(str(folder / "b.jpg"), "BGR").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "orientation, words",
    [
        (3, ["1 image(s) are turned or mirrored", "image 8 (b.png)", "exiftool"]),
        (1, []),
    ],
)
def test_an_orientation_that_changes_no_size_is_warned_of(folder, orientation, words):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels()).save(str(folder / "b.png"), exif=exif.tobytes())
    for images in ("decode", "headers"):
        report = report_of(folder, "b.png", images=images)
        assert report.errors == [] and bool(report.warnings) == bool(words)
        assert all(word in report.warnings[0] for word in words)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_boxes_on_the_stored_pixels_of_a_turned_image(folder, suffix):
    exif = Image.Exif()
    exif[274] = 8
    Image.fromarray(pixels()).save(str(folder / f"b.{suffix}"), exif=exif.tobytes())
    for images in ("decode", "headers"):
        (error,) = report_of(folder, f"b.{suffix}", images=images).errors
        assert (
            "the file is 40 x 60, annotated are 60 x 40 (turned by EXIF orientation?)" in error and "exiftool" in error
        )


MODES = {
    "1": {},
    "L": {},
    "P": {},
    "RGB": {},
    "RGBA": {},
    "LA": {},
    "CMYK": {"suffix": "jpg"},
    "YCbCr": {"suffix": "jpg"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_ordinary_images_are_read_as_detectron2_reads_them(tmp_path, mode, image_format):
    path = str(tmp_path / f"a.{MODES[mode].get('suffix', 'png')}")
    Image.fromarray(pixels()).convert(mode).save(path)
    record = {
        "file_name": path,
        "image_id": 1,
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [{**annotation(1, 1, 5, 6, 20), "category_id": 0, "bbox_mode": 1}] * 2,
    }
    augmentations = [T.ResizeShortestEdge(64, 80), T.RandomFlip(prob=1.0)]
    for settings in ({"is_train": True}, {"is_train": False}, {"is_train": True, "use_instance_mask": True}):
        ours, theirs = (
            kind(augmentations=augmentations, image_format=image_format, **settings)(record)
            for kind in (BalancedMapper, DatasetMapper)
        )
        assert ours.keys() == theirs.keys() and torch.equal(ours["image"], theirs["image"])
        if settings["is_train"]:
            ours, theirs = ours["instances"], theirs["instances"]
            assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor) and ours.has("gt_masks") == theirs.has(
                "gt_masks"
            )


def test_the_mapper_of_a_config_is_this_one():
    cfg = get_balanced_cfg()
    assert type(build_mapper(cfg, True)) is type(build_mapper(cfg, False)) is BalancedMapper


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_grey_is_scaled_by_one_rule(tmp_path, suffix, orientation):
    values = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(str(path), exif=exif if suffix == "tif" else exif.tobytes())
    expected = np.array([[round(v * 255 / 65535) for v in row] for row in values.tolist()])
    expected = np.rot90(expected, -1) if orientation == 6 else expected
    found = read_image(str(path), "BGR")
    assert found.dtype == np.uint8 and (found == expected[:, :, None]).all()
    assert image_facts(str(path), True).highest == 65535


@pytest.mark.parametrize("kind", ["I;16B", "PPM"])
def test_16_bit_grey_of_other_kinds(tmp_path, kind):
    values = np.arange(0, 65536, 27, dtype=np.uint16)[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)
    path = str(tmp_path / ("a.pgm" if kind == "PPM" else "a.tif"))
    if kind == "PPM":
        Path(path).write_bytes(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + values.astype(">u2").tobytes())
    else:
        Image.frombytes("I;16B", (WIDTH, HEIGHT), values.astype(">u2").tobytes()).save(path)
    expected = np.rint(values / 257).astype(np.uint8)
    assert (read_image(path, "RGB") == expected[:, :, None]).all() and image_facts(path, True).is_16_bit


def test_values_of_a_camera_of_12_bits_are_refused_with_the_factor(folder):
    Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 16).save(str(folder / "b.png"))
    (error,) = report_of(folder, "b.png").errors
    for text in (
        "1 image(s) of 16-bit grey hold no value above",
        "image 8 (b.png)",
        "12 bits",
        "multiply their values by 16",
    ):
        assert text in error
    Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257).save(str(folder / "b.png"))
    report = report_of(folder, "b.png")
    assert report.errors == [] and report.summary["images of 16-bit grey (65535 becomes 255)"] == 1


def stack(path, dtype=np.uint8):
    first, second = (pixels(k) if dtype == np.uint8 else pixels(k)[:, :, 0].astype(dtype) * 257 for k in (0, 1))
    Image.fromarray(first).save(path, save_all=True, append_images=[Image.fromarray(second)])


REFUSED = {
    "a.tif": (
        lambda path: Image.fromarray(pixels()[:, :, 0].astype(np.float32)).save(path),
        "has floating-point pixels",
    ),
    "b.tif": (
        lambda path: Image.fromarray(pixels()[:, :, 0].astype(np.int32)).save(path),
        "has 32-bit or signed pixels",
    ),
    "f.tif": (lambda path: stack(path, np.uint16), "has 2 pages or frames"),
    "c.tif": (stack, "has 2 pages or frames, of which only the first would be read"),
    "d.gif": (stack, "has 2 pages or frames"),
    "e.webp": (stack, "has 2 pages or frames"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_to_be_guessed_is_refused(folder, name):
    save, text = REFUSED[name]
    save(str(folder / name))
    for images in ("decode", "headers"):
        (error,) = report_of(folder, name, images=images).errors
        assert text in error and f"image 8 ({name})" in error
    with pytest.raises(DataError, match=text) as raised:
        read_image(str(folder / name))
    assert name in str(raised.value)


def test_previews_are_no_pages(folder):
    image, small = Image.fromarray(pixels()), Image.fromarray(pixels(1)).resize((6, 4))
    image.save(str(folder / "photo.jpg"), format="MPO", save_all=True, append_images=[small])
    small.encoderinfo, small.encoderconfig = {"tiffinfo": {254: 1}}, ()
    image.save(str(folder / "scan.tif"), save_all=True, append_images=[small])
    for name in ("photo.jpg", "scan.tif"):
        with Image.open(str(folder / name)) as opened:
            assert opened.n_frames == 2
            if name == "scan.tif":
                opened.seek(1)
                if 254 not in opened.tag_v2:
                    pytest.skip("this Pillow writes no tags of further pages")
        assert report_of(folder, name).errors == []


@pytest.mark.parametrize(
    "alpha, errors, warnings",
    [
        (255, None, None),
        (0, "it is wholly transparent", None),
        ("half", None, "1 image(s) have transparent pixels"),
    ],
)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency(folder, mode, alpha, errors, warnings):
    image = Image.fromarray(pixels()).convert("RGBA")
    opacity = np.full((HEIGHT, WIDTH), alpha if alpha != "half" else 255, np.uint8)
    opacity[:10] = 0 if alpha == "half" else opacity[:10]
    image.putalpha(Image.fromarray(opacity))
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = bytes([{255: 255, 0: 0}.get(alpha, 0 if k % 2 else 255) for k in range(16)])
        image.save(str(folder / "b.png"), transparency=image.info["transparency"])
    else:
        image.convert(mode).save(str(folder / "b.png"))
    report = report_of(folder, "b.png")
    for found, expected in ((report.errors, errors), (report.warnings, warnings)):
        assert len(found) == (expected is not None) and all(expected in message for message in found)


# ---- sizes after resizing


@pytest.mark.parametrize("short, long", [(160, 320), (800, 1333), (48, 96)])
def test_scales_are_those_of_detectron2(short, long):
    rng, size = np.random.RandomState(0), InputSize(short, long)
    for width, height in [*rng.randint(1, 10_000, (200, 2)), (9000, 12), (1, 1), (5000, 1)]:
        transform = T.ResizeShortestEdge(short, long).get_transform(np.broadcast_to(np.uint8(0), (height, width)))
        scale = size.scales(np.array([[width, height]], dtype=float))[0]
        assert (
            abs(transform.new_w - width * scale) <= 0.5 + 1e-6 and abs(transform.new_h - height * scale) <= 0.5 + 1e-6
        )


def test_input_size_of_mappers():
    cfg = get_balanced_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (640, 480, 800), 1000
    assert input_size_of(build_mapper(cfg, True)) == (480, 1000)
    cfg.INPUT.MIN_SIZE_TEST = 0
    assert input_size_of(build_mapper(cfg, False)) is input_size_of(lambda record: record) is None


def strip(folder):
    Image.new("RGB", (900, 2)).save(str(folder / "strip.png"))
    content = sound()
    content["images"].append({"id": 20, "file_name": "strip.png", "width": 900, "height": 2})
    content["annotations"].append({**annotation(20, 20, 300, 0, 2), "segmentation": []})
    return write(folder, content)


def test_a_strip_of_which_resizing_leaves_no_pixel(folder):
    name = register_by_path("strip", strip(folder), str(folder), replace=True).name
    too_small = DatasetMapper(is_train=True, augmentations=[T.ResizeShortestEdge([48, 64], 96)], image_format="BGR")
    (error,) = check_registered(name, 2, mapper=too_small).errors
    for text in (
        "1 image(s) that nothing is left of",
        "900 x 2 becomes 96 x 0",
        "image 20 (strip.png)",
        "MAX_SIZE_TRAIN",
    ):
        assert text in error
    record = DatasetCatalog.get(name)[3]
    with pytest.raises((ValueError, RuntimeError)):
        too_small(record)
    fits = BalancedMapper(is_train=True, augmentations=[T.ResizeShortestEdge([48, 64], 400)], image_format="BGR")
    assert check_registered(name, 2, mapper=fits).errors == [] and fits(record)["image"].shape == (3, 1, 400)


def test_a_strip_is_warned_of_where_the_sizes_are_not_known(folder):
    report = check_dataset(strip(folder), str(folder), input_size=InputSize(800, 1333))
    assert report.errors == [] and any("little is left of" in message for message in report.warnings)
    report = check_dataset(strip(folder), str(folder), input_size=InputSize(160, 200), size_is_known=True)
    assert any("nothing is left of" in message for message in report.errors)


def test_images_much_larger_than_their_objects(folder):
    content = sound()
    for image in content["images"]:
        image.update(width=6000, height=4000)
    path = write(folder, content)
    report = check_dataset(path, str(folder), input_size=InputSize(800, 1333), images="none")
    (warning,) = [message for message in report.warnings if "much larger than their objects" in message]
    assert (
        "to 0.2 of their size, half of the objects are smaller than 2.5 x 2.5 pixels" in warning and "tiles" in warning
    )
    report = check_dataset(path, str(folder), input_size=InputSize(4000, 6000), images="none")
    assert not any("much larger than their objects" in message for message in report.warnings)


def test_a_mapper_that_clips_16_bit_grey_is_told(folder):
    Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257).save(str(folder / "b.png"))
    content = sound()
    content["images"][1]["file_name"] = "b.png"
    name = register_by_path("clipped", write(folder, content), str(folder), replace=True).name
    with pytest.raises(DataError, match="DatasetMapper clips at 255.*b.png.*BalancedMapper"):
        run_checks([name], 2, mappers={name: DatasetMapper(is_train=True, augmentations=[], image_format="BGR")})
    run_checks([name], 2, mappers={name: mapper(True)})
    assert L(BalancedMapper)(is_train=True)._target_ is BalancedMapper


def test_objects_without_a_mask_do_not_stop_a_training_of_masks(folder):
    content = sound()
    del content["annotations"][1]["segmentation"]
    name = register_by_path("without_mask", write(folder, content), str(folder), replace=True).name
    record = DatasetCatalog.get(name)[0]
    instances = mapper(True, use_instance_mask=True)(record)["instances"]
    assert len(instances) == 1 and instances.gt_boxes.tensor.tolist() == [[5, 6, 15, 16]]
    assert len(mapper(True)(record)["instances"]) == 2
    assert SOUND["annotations"][1]["segmentation"]
