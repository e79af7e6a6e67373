"""Runs that were never trained: random weights whose scores are spread out, so that there is much to find."""

import os

import numpy as np
import torch
from d2_balanced.engine.checkpoint import BalancedCheckpointer
from d2_balanced.engine.open import open_experiment
from PIL import Image
from tiny_runs import TINY

SIZES = ((96, 64), (48, 80), (131, 97), (33, 40))  # width and height

_SPREAD = {"cls_score.weight": 8, "objectness_logits.weight": 8, "bbox_pred.weight": 10, "anchor_deltas.weight": 10,
           "regressor": 10, "iou_predictor": 20}  # fmt: skip


def spread(model):
    """Let scores and boxes of a model with random weights differ from RoI to RoI."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for part, factor in _SPREAD.items():
                if part in name and "weight" in name:
                    parameter.mul_(factor)
            if name == "head.cls_score.bias":  # RetinaNet's are those of one object in a hundred anchors
                parameter.fill_(-2.5)
    return model


def make_run(folder, config, *overrides, tiny=True):
    """The folder of a run of this config, with ``model_final.pth``."""
    changes = [*(TINY if tiny else ()), "MODEL.DEVICE", "cpu", *overrides]
    experiment = open_experiment(config, [str(word) for word in changes])
    experiment.set_run(seed=1, output_dir=str(folder))
    os.makedirs(folder, exist_ok=True)
    experiment.save_config(str(folder / "config.yaml"))
    torch.manual_seed(0)
    BalancedCheckpointer(spread(experiment.build_model()), str(folder)).save("model_final")
    return str(folder)


def make_images(folder, sizes=SIZES):
    """Soft random patterns of these sizes; returns the paths of the image files."""
    os.makedirs(folder, exist_ok=True)
    paths, generator = [], np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(paths[-1])
    return paths
