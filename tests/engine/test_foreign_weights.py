"""Weights of other programs: their layout is recognised, and they are loaded by name or refused by name."""

import logging
import urllib.error

import pytest
import torch
from d2_balanced.engine import fetch as fetching
from d2_balanced.engine.foreign_weights import in_detectron2_layout
from d2_balanced.engine.start import require_weights
from d2_balanced.utils.errors import CheckpointError

OURS = {
    name: torch.full((2,), float(number))
    for number, name in enumerate(["backbone.bottom_up.stem.conv1.weight", "roi_heads.box_head.fc1.bias", "pixel_mean"])
}


def named(*names):
    return {name: torch.zeros(1) for name in names}


def inside(wrapper):
    return {f"{wrapper}.{name}": value for name, value in OURS.items()}


LOADED = {
    "plain": (OURS, ""),
    "detectron2": ({"model": OURS, "iteration": 3, "optimizer": {"state": {}}}, ""),
    "mmengine, our model": ({"meta": {}, "state_dict": OURS, "optimizer": {}}, "of state_dict; left out: 'meta'"),
    "Lightning": ({"epoch": 1, "state_dict": inside("model")}, "without their beginning 'model.'"),
    "Lightning with a loss": ({"state_dict": {**inside("model"), **named("loss.w")}}, "not within model: 'loss.w'"),
    "DDP": ({"epoch": 1, "state_dict": inside("module"), "optimizer": {}}, "without their beginning 'module.'"),
    "DDP in Lightning": ({"state_dict": inside("model.module")}, "without their beginning 'model.module.'"),
    "compiled": (inside("_orig_mod"), "without their beginning '_orig_mod.'"),
    "tutorial": ({"model_state_dict": OURS, "epoch": 3}, "of model_state_dict; left out: 'epoch'"),
    "flat, with an epoch": ({**OURS, "epoch": 12}, "of the file itself; left out: 'epoch'"),
    "with an average": ({"ema": named("a"), "state_dict": OURS}, "of state_dict; left out: 'ema'"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LOADED)
def test_our_names_are_found(layout, caplog):
    content, said = LOADED[layout]
    with caplog.at_level(logging.WARNING):
        found = in_detectron2_layout(content, "w.pth")
    assert {name: value.tolist() for name, value in found["model"].items()} == {k: v.tolist() for k, v in OURS.items()}
    assert said in caplog.text and bool(said) == bool(caplog.records)
    assert ("iteration" in found) == ("iteration" in content)


REFUSED = {
    "mmdetection": (
        {"meta": {}, "state_dict": named("backbone.conv1.weight", "neck.fpn_convs.0.weight", "rpn_head.rpn_conv.bias")},
        "'w.pth' is of mmdetection, as 'rpn_head.rpn_conv.bias' in it shows: .*detectron2://",
    ),
    "torchvision": (
        named("backbone.body.conv1.weight", "rpn.head.conv.0.0.weight", "roi_heads.box_head.fc6.weight"),
        r"of torchvision \(a detector\), as 'backbone.body.conv1.weight'.*convert-torchvision-to-d2",
    ),
    "torchvision in Lightning": ({"state_dict": named("model.backbone.body.conv1.weight")}, "of torchvision"),
    "ResNet": (named("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"), "classifier.*PIXEL_STD"),
    "DETR": ({"model": named("transformer.encoder.layers.0.norm1.bias", "class_embed.bias")}, "of DETR"),
    "a list": ([1, 2], "is a list, not a dict of weights"),
    "a number": ({"model": 3}, "its entry 'model' is a int, not a dict of weights"),
    "nothing": ({"state_dict": {}, "epoch": 3}, "'state_dict' is a dict.*here are 'state_dict', 'epoch'"),
    "optimizer": ({"state": {0: {"m": torch.zeros(1)}}, "param_groups": []}, "'state' is a dict"),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_other_layouts_are_refused_by_name(layout):
    content, message = REFUSED[layout]
    with pytest.raises(CheckpointError, match=message):
        in_detectron2_layout(content, "w.pth")


def test_a_user_s_own_architecture_is_left_alone(caplog):
    ours = {"model": named("neck.weight", "bbox_head.weight"), "iteration": 1}
    for content in (named("model.neck.weight", "model.bbox_head.weight"), ours):
        assert set(in_detectron2_layout(content, "w.pth")["model"]) == set(content.get("model", content))
    assert not caplog.records


@pytest.mark.parametrize("path, url", [
    ("https://x.org/a/b/R-50.pkl", "https://x.org/a/b/R-50.pkl"),
    ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2/ImageNetPretrained/MSRA/R-50.pkl"),
    ("catalog://ImageNetPretrained/MSRA/R-50", "ImageNetPretrained/MSRA/R-50.pkl"),
])  # fmt: skip
def test_without_a_network_url_cause_and_place_are_said(path, url, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("iopath.common.file_io.download", no_network)
    with pytest.raises(CheckpointError) as error:
        require_weights(path)
    said = str(error.value)
    assert f"{path!r} cannot be fetched: Network is unreachable. Where there is a network, download http" in said
    assert url in said and "MODEL.WEIGHTS ''" in said
    place = fetching._where(path)[1]
    assert repr(place) in said
    (tmp_path / place).write_bytes(b"weights")  # iopath has made the folder; the file at that place is then used
    assert fetching.fetch(path) == place


def test_a_name_that_the_catalog_does_not_have():
    with pytest.raises(CheckpointError, match="cannot be fetched: .*Or start without them"):
        require_weights("catalog://NoSuchModel/1")
