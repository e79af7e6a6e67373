"""The fragments of projects/Peers: every yaml file has a function that makes the same of a LazyConfig."""

import copy
import functools
import glob
import os

import pytest
import torch
import twins
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from paths import ROOT

from d2_balanced.config import check_config, load_lazy, load_yaml

FOLDER = os.path.join(ROOT, "projects", "Peers", "configs", "components")
FRAGMENTS = sorted(os.path.basename(path)[: -len(".yaml")] for path in glob.glob(os.path.join(FOLDER, "*.yaml")))
FILES = sorted(glob.glob(os.path.join(FOLDER, "*.py")))


@functools.lru_cache(maxsize=None)
def base(name):
    return load_lazy(os.path.join(ROOT, "configs", "quick", f"{name}_R_18_FPN.py")).model


def function(name):
    """The function of this name, from any of the folder's files."""
    for path in FILES:
        with open(path, encoding="utf-8") as file:
            if f"\ndef {name}(" in file.read():
                return LazyConfig.load(path, (name,))[0]
    raise AssertionError(f"no function {name} in {FOLDER}")


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragment_and_function_make_the_same_model(name, tmp_path):
    if name == "weighted_boxes_fusion":
        pytest.importorskip("ensemble_boxes")
    detector = "retinanet" if name.endswith("_retinanet") else "faster_rcnn"
    quick = os.path.join(ROOT, "configs", "quick", f"{detector}_R_18_FPN.yaml")
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: [{quick}, {os.path.join(FOLDER, name)}.yaml]\n")
    cfg = load_yaml(str(config))
    check_config(cfg)
    cfg.MODEL.DEVICE = "meta"
    model = copy.deepcopy(base(detector))
    function(name)(model)
    with torch.device("meta"):
        from_yaml, lazy = build_model(cfg), instantiate(model)
    assert twins.shapes_of(from_yaml) == twins.shapes_of(lazy)
    assert twins.settings_of(from_yaml) == twins.settings_of(lazy)
    assert twins.settings_of(lazy) != twins.settings_of(unchanged(detector))


@functools.lru_cache(maxsize=None)
def unchanged(detector):
    with torch.device("meta"):
        return instantiate(base(detector))
