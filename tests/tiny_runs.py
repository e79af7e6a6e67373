"""Runs of ``train_net.py`` that take a second: a few small images, a detector with few channels, how to compare."""

import json
import os

import numpy as np
import torch
from d2_balanced.engine import build
from d2_balanced.train import main as train_main
from d2_balanced.utils.json_lines import read_metrics
from detectron2.engine import HookBase
from PIL import Image
from paths import ROOT

TINY = [
    "MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "2",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.FPN.OUT_CHANNELS", "8",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "16", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "16",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20", "MODEL.RPN.PRE_NMS_TOPK_TEST", "20",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "10", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1",
    "INPUT.MIN_SIZE_TRAIN", "(48,64)", "INPUT.MAX_SIZE_TRAIN", "96",
    "INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "96",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "3", "SOLVER.LOG_PERIOD", "3",
    "SOLVER.CHECKPOINT_PERIOD", "1000",
]  # fmt: skip
LAZY_TINY = [
    "dataloader.train.total_batch_size=2", "dataloader.train.mapper.augmentations.0.short_edge_length=[48]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=48", "train.log_period=2", "train.seed=5",
]  # fmt: skip
UNTOLD = ("time", "data_time", "memory_mb", "eta_seconds")


def quick_config(model, suffix="yaml"):
    """Path of a quick config by the name of its model."""
    return os.path.join(ROOT, "configs", "quick", f"{model}_R_18_FPN.{suffix}")


def make_dataset(folder, images=6, seed=0):
    """Draw ``images`` wide and tall pictures with 1 to 3 boxes of two classes; returns (json file, image folder)."""
    rng = np.random.default_rng(seed)
    os.makedirs(folder, exist_ok=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "dark"}, {"id": 7, "name": "light"}]}
    for image_id in range(images):
        width, height = (64, 48) if image_id % 3 else (48, 64)
        pixels = rng.integers(100, 156, (height, width, 3))
        for _ in range(int(rng.integers(1, 4))):
            w, h = rng.integers(10, 30, 2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            category = 7 if rng.random() < 0.8 else 3
            pixels[y : y + h, x : x + w] += 80 if category == 7 else -80
            x, y, w, h = (int(v) for v in (x, y, w, h))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0,
                    "bbox": [x, y, w, h], "area": w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )  # fmt: skip
        name = f"{image_id}.png"
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(os.path.join(folder, name))
        content["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
    path = os.path.join(folder, "annotations.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path, str(folder)


def data_arguments(train, val=None):
    """``--train-json ...`` of what ``make_dataset`` returned."""
    words = ["--train-json", train[0], "--train-images", train[1]]
    return words + (["--val-json", val[0], "--val-images", val[1]] if val else [])


class StopAfter(HookBase):
    """Interrupts training as a signal does, when ``done`` iterations are finished."""

    def __init__(self, done):
        self.done = done

    def before_step(self):
        if self.trainer.iter + 1 == self.done:
            self.trainer.request_stop("SIGTERM")


def train_net(*words, stop_after=None, monkeypatch=None):
    """Run the command line in this process; returns its exit status."""
    if stop_after is not None:
        build_hooks = build.build_hooks
        monkeypatch.setattr(build, "build_hooks", lambda *args: build_hooks(*args) + [StopAfter(stop_after)])
    try:
        train_main([str(word) for word in words])
        status = 0
    except SystemExit as stop:
        status = stop.code
    if stop_after is not None:
        monkeypatch.setattr(build, "build_hooks", build_hooks)
    return status


def checkpoint(folder, name="model_final.pth"):
    """The content of a checkpoint, without what measures the machine or names the folder (the config)."""
    content = torch.load(os.path.join(folder, name), map_location="cpu", weights_only=True)
    for untold in UNTOLD:
        content["trainer"]["recent_scalars"].pop(untold, None)
    content["about"].pop("config")
    return content


def told(folder):
    """The lines of metrics.json without what measures the machine."""
    lines = read_metrics(os.path.join(folder, "metrics.json"))
    return [{name: value for name, value in line.items() if name not in UNTOLD} for line in lines]


def differences(first, second, path=""):
    """Where two checkpoints differ in a bit: paths of tensors and values."""
    if isinstance(first, torch.Tensor):
        same_bits = first.shape == second.shape and first.numpy().tobytes() == second.numpy().tobytes()  # NaN too
        return [] if same_bits else [path]
    if isinstance(first, dict):
        assert set(first) == set(second), path
        return [found for key in first for found in differences(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        return [found for k, (a, b) in enumerate(zip(first, second)) for found in differences(a, b, f"{path}/{k}")]
    return [] if first == second else [path]
