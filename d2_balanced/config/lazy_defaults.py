"""The plain settings of a LazyConfig: what ``train`` and ``data`` hold (everything else is an ``L(...)`` node)."""

from copy import deepcopy
from typing import Any, Dict

__all__ = ["train_defaults", "data_defaults"]

# detectron2's own `train` settings, then seed, accumulate, best_metric, patience and test_aug (yacs: SEED,
# SOLVER.ACCUMULATE, TEST.BEST_METRIC, TEST.PATIENCE, TEST.AUG) and the node of gradient annealing
# (SOLVER.GRADIENT_ANNEALING; initial 1: none).
_TRAIN = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 90000,
    "amp": {"enabled": False},
    "layers": {"precision": "float32", "channels_last": False, "fold_frozen_norm": False},  # yacs: MODEL.LAYERS
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": True},
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
    "seed": -1,
    "accumulate": 1,
    "test_batch_size": 1,  # yacs: TEST.IMS_PER_BATCH
    "best_metric": "bbox/AP",
    "patience": 0,
    "test_aug": {  # yacs: TEST.AUG
        "enabled": False,
        "min_sizes": [400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
        "max_size": 4000,
        "flip": True,
    },
    "record_imbalance": {  # yacs: ANALYSIS
        "enabled": False,
        "period": 20,
        "gradient_period": 0,
        "gradient_parameter": "backbone.bottom_up.res5.0.conv1.weight",
    },
    "tracking": {"mlflow": "", "wandb": ""},  # yacs: TRACKING
    "gradient_annealing": {"_target_": "d2_balanced.engine.gradient_annealing.GradientAnnealing", "initial": 1.0},
}

# A COCO-format data set by its paths, and whether warnings about data are errors (yacs: DATASETS.TRAIN_JSON, STRICT, ...).
_DATA = {"train_json": "", "train_images": "", "val_json": "", "val_images": "", "strict": False}


def train_defaults() -> Dict[str, Any]:
    """A new copy of the ``train`` settings."""
    return deepcopy(_TRAIN)


def data_defaults() -> Dict[str, Any]:
    """A new copy of the ``data`` settings."""
    return deepcopy(_DATA)
