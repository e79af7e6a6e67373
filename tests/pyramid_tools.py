"""Golden pyramids, weights and backbones for the tests of the feature pyramid."""

import numpy as np
import torch
from paths import shared_file

from d2_balanced.config import get_balanced_cfg, merge_overrides

GOLDEN_ATOL = 2e-5  # golden/README.md, file 2
LAYERS = ("theta", "phi", "g", "out")
REFINEMENTS = {"none": "none", "conv": "conv", "nl": "non_local"}  # the golden file's names and ours


def golden():
    return np.load(shared_file("golden", "bfp.npz"), allow_pickle=False)


def load(block, arrays, prefix):
    """Put the golden weights of a non-local block into ours."""
    for layer in LAYERS:
        getattr(block, layer).weight.data = torch.from_numpy(arrays[f"{prefix}{layer}_weight"])
        getattr(block, layer).bias.data = torch.from_numpy(arrays[f"{prefix}{layer}_bias"])
    return block


def tiny_cfg(name, *overrides):
    cfg = get_balanced_cfg()
    stages = ["res3", "res4", "res5"] if "retinanet" in name else ["res2", "res3", "res4", "res5"]
    tiny = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "8"]
    tiny += ["MODEL.RESNETS.OUT_FEATURES", str(stages), "MODEL.FPN.IN_FEATURES", str(stages)]
    merge_overrides(cfg, [*tiny, "MODEL.BACKBONE.NAME", name, *overrides])
    return cfg


def retinanet_of(name):
    return name.replace("build_resnet", "build_retinanet_resnet")
