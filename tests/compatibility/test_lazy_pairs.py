"""The components of the projects in pairs on a LazyConfig: they are built, or refused, as from yaml.

A training step from both kinds of configs is compared in ``tests/config/test_first_step.py``.
"""

import copy
import itertools
import os

import choices
import document
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from paths import ROOT

from d2_balanced.config import load_lazy

# Choice of docs/COMPATIBILITY.md -> the function of a project that makes it; copies of others' nodes come last.
COMPONENTS = {
    "BalancedFPN": ("LibraRCNN", "libra", "balanced_pyramid"),
    "context blocks": ("R3CNN", "r3", "context_blocks"),
    "RandomSampler (RPN)": ("LibraRCNN", "libra", "bounded_rpn_negatives"),
    "DynamicMatcher": ("DynamicRCNN", "dynamic", "dynamic_label_assignment"),
    "IoUBalancedSampler": ("LibraRCNN", "libra", "iou_balanced_sampling"),
    "HardRatioSampler": ("RGA_PRM", "rga_prm", "hard_ratio"),
    "NonLocalConvHead": ("R3CNN", "r3", "large_box_head"),
    "DoubleHead": ("Peers", "heads", "double_head"),
    "Buckets": ("Peers", "heads", "buckets"),
    "PISA": ("Peers", "samples", "pisa"),
    "SamplingFree": ("Peers", "samples", "sampling_free"),
    "BalancedL1": ("LibraRCNN", "libra", "balanced_l1"),
    "DynamicSmoothL1": ("DynamicRCNN", "dynamic", "dynamic_smooth_l1"),
    "MaskIoUHead": ("R3CNN", "r3", "mask_scoring"),
    "RecursiveStages": ("R3CNN", "r3", "loops"),
    "IoUBranch": ("IoUUniformRCNN", "iou_uniform", "iou_uniform"),
    "IoUBranch, no IoU predictor": ("IoUUniformRCNN", "iou_uniform", "uniform_samples"),
    "two branches": ("RGA_PRM", "rga_prm", "prm"),
}
REFUSED = document.read().pairs
TRIED = {(first.name, second.name) for first, second in choices.pairs()}  # the others stand at one seat
PAIRS = [pair for names in itertools.combinations(COMPONENTS, 2) for pair in (names, names[::-1]) if pair in TRIED]


@pytest.fixture(scope="module")
def base():
    return load_lazy(os.path.join(ROOT, "configs", "quick", "mask_rcnn_R_18_FPN.py")).model


def apply(name, model):
    project, file, function = COMPONENTS[name]
    path = os.path.join(ROOT, "projects", project, "configs", "components", f"{file}.py")
    LazyConfig.load(path, (function,))[0](model)


@pytest.mark.parametrize("pair", PAIRS, ids=" x ".join)
def test_pair_is_built_or_refused_as_from_yaml(pair, base):
    model = copy.deepcopy(base)
    for name in sorted(pair, key=list(COMPONENTS).index):
        apply(name, model)
    with torch.device("meta"):
        if pair not in REFUSED:
            assert instantiate(model)
            return
        with pytest.raises(ValueError) as error:
            instantiate(model)
    assert document.why(error.value) == REFUSED[pair]
