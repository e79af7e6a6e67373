"""Tiles: where they lie, how their objects become the image's, and that an image of one tile is as without."""

import numpy as np
import pytest
import torch
from blob_detector import Blobs, Mapper, picture
from d2_balanced.inference import Predictor, Tiles
from d2_balanced.inference.tiles import merge_windows
from d2_balanced.utils.errors import ConfigError
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn


@pytest.mark.parametrize("height, width, size, overlap", [
    (100, 130, 60, 0.2), (60, 61, 60, 0.0), (300, 20, 64, 0.5), (97, 301, 50, 0.99), (128, 128, 64, 0.0),
])  # fmt: skip
def test_windows_cover_the_image_and_overlap(height, width, size, overlap):
    whole, *tiles = Tiles(size, overlap).windows(height, width)
    assert whole == (0, 0, width, height)
    covered = np.zeros((height, width), int)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 and x2 <= width and x2 - x1 == min(size, width)
        assert 0 <= y1 and y2 <= height and y2 - y1 == min(size, height)
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1 and len(set(tiles)) == len(tiles)
    lefts = sorted({x1 for x1, *_ in tiles})
    assert all(right - left <= max(1, size * (1 - overlap)) for left, right in zip(lefts, lefts[1:]))


def test_an_image_of_one_tile_has_one_window():
    assert Tiles(64).windows(64, 40) == [(0, 0, 40, 64)]


@pytest.mark.parametrize("wrong", [(0,), (1.5,), (10, 1.0), (10, -0.1)])
def test_wrong_tiles(wrong):
    with pytest.raises(ValueError, match="Tiles: (size|overlap)"):
        Tiles(*wrong)


def grid(step, side, size):
    return [(x, y, x + side, y + side) for y in range(7, size - side, step) for x in range(3, size - side, step)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_copies_all_over_a_large_picture_are_found_once_each_where_they_are(batch_size):
    copies = grid(29, 12, 400)
    predictor = Predictor(Blobs(), Mapper(), ["blob"], tiles=Tiles(100, 0.2))
    found = predictor(picture(copies, (400, 400)), batch_size=batch_size)
    assert sorted(map(tuple, found.pred_boxes.tensor.int().tolist())) == sorted(copies)
    for box, mask in zip(found.pred_boxes.tensor.int().tolist(), found.pred_masks):
        x1, y1, x2, y2 = box
        assert mask.sum() == (x2 - x1) * (y2 - y1) and mask[y1:y2, x1:x2].all()
    assert len(predictor.model.sizes) == 1 + -(-25 // batch_size)  # the whole, and 25 tiles
    assert found.image_size == (400, 400)


def test_small_ones_that_the_whole_image_does_not_show_are_found_in_its_tiles():
    copies = grid(57, 12, 400)
    image = picture(copies, (400, 400))
    blobs = Blobs(least=100)  # of the 100 x 100 pixels that the mapper makes of everything: a copy has 9, in a tile 144
    assert len(Predictor(blobs, Mapper(100), ["blob"])(image)) == 0
    found = Predictor(blobs, Mapper(100), ["blob"], tiles=Tiles(100, 0.2))(image)
    assert sorted(map(tuple, found.pred_boxes.tensor.int().tolist())) == sorted(copies)


def test_what_is_larger_than_a_tile_is_found_whole_and_once():
    large = (20, 30, 320, 250)
    found = Predictor(Blobs(), Mapper(), ["blob"], tiles=Tiles(100, 0.2))(picture([large], (400, 400)))
    assert [tuple(box) for box in found.pred_boxes.tensor.int().tolist()] == [large]


def window(*rows):
    """Instances of (x1, y1, x2, y2, score, class)."""
    found = Instances((100, 100))
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    found.pred_boxes, found.scores, found.pred_classes = Boxes(rows[:, :4]), rows[:, 4], rows[:, 5].long()
    return found


WINDOWS = [(0, 0, 180, 100), (0, 0, 100, 100), (80, 0, 180, 100)]


def merged(*found):
    result = merge_windows(found, WINDOWS, 0.5)
    columns = result.pred_boxes.tensor.tolist(), result.scores.tolist(), result.pred_classes.tolist()
    return [(*box, round(score, 3), label) for box, score, label in zip(*columns)]


def test_which_of_two_boxes_of_one_object_stays():
    whole = (90, 10, 130, 40, 0.7, 0)  # in the second tile
    moved = (10, 10, 50, 40, 0.7, 0)  # the same one, as that tile has it
    nothing = window()
    # A tile has cut it: the whole one wins, though it has the lower score.
    assert merged(nothing, window((70, 10, 100, 40, 0.95, 0)), window((0, 10, 50, 40, 0.7, 0))) == [
        (70, 10, 100, 40, 0.95, 0), (80, 10, 130, 40, 0.7, 0)]  # both cut, by half: there is no better one  # fmt: skip
    assert merged(nothing, window((90, 10, 100, 40, 0.95, 0)), window(moved)) == [whole]
    assert merged(window(whole), window((90, 10, 100, 40, 0.95, 0)), nothing) == [whole]
    # ... unless it is much worse; of another class it is another object.
    assert merged(nothing, window((80, 10, 100, 40, 0.95, 0)), window((1.5, 10, 21.5, 40, 0.1, 0))) == [
        (80, 10, 100, 40, 0.95, 0)]  # fmt: skip
    assert len(merged(nothing, window((90, 10, 100, 40, 0.95, 1)), window(moved))) == 2
    # The image's own border cuts nothing; of what one window shows, nothing is taken for a part of another.
    assert len(merged(nothing, window((0, 10, 30, 40, 0.5, 0), (0, 0, 60, 60, 0.9, 0)), nothing)) == 2
    assert len(merged(nothing, window((85, 10, 100, 40, 0.5, 0), (20, 0, 99.5, 90, 0.9, 0)), nothing)) == 2


def test_nothing_is_found():
    assert merged(window(), window(), window()) == []


def test_a_tile_larger_than_the_image_changes_no_bit(tmp_path):
    from d2_balanced.config import load_yaml
    from d2_balanced.data.mapper import build_mapper
    from PIL import Image
    from tiny_runs import TINY, quick_config

    cfg = load_yaml(quick_config("mask_rcnn"), [*TINY, "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model, mapper = build_model(cfg), build_mapper(cfg, False)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    plain, tiled, cut = (Predictor(model, mapper, ["a"] * 3, tiles=tiles)(tmp_path / "a.png")
                         for tiles in (None, Tiles(90), Tiles(60)))  # fmt: skip
    assert len(plain) > 1 and plain.get_fields().keys() == tiled.get_fields().keys() == cut.get_fields().keys()
    for name, value in plain.get_fields().items():
        assert torch.equal(getattr(value, "tensor", value), getattr(tiled.get(name), "tensor", tiled.get(name))), name
    assert cut.pred_masks.shape == (len(cut), 60, 90) and (cut.scores.diff() <= 0).all()


def test_a_model_whose_limits_are_unknown_has_no_tiles():
    with pytest.raises(ConfigError, match="Identity does not say"):
        Predictor(nn.Identity(), Mapper(), ["a"], tiles=Tiles(10))
