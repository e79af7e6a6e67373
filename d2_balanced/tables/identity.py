"""Which runs are the same: a short hash of what a run's result depends on."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from typing import Any, Dict

from detectron2.config import CfgNode

from ..config import get_balanced_cfg
from ..config.check_yacs import spec_registries
from ..config.yacs import flatten
from ..modeling.backbone.balanced_fpn import BalancedFPN
from ..modeling.backbone.pafpn import PAFPN
from ..modeling.spec import signature_parameters
from .files import ROOT

__all__ = ["identity", "run_key"]

# What changes no result, or is decided when a run starts. The seed has a folder of its own; recording changes no bit.
_BOOKKEEPING = (
    "OUTPUT_DIR", "SEED", "VERSION", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD", "SOLVER.LOG_PERIOD", "SOLVER.MAX_TO_KEEP", "TEST.ERRORS",
)  # fmt: skip
# Taken from the data where they are given by their paths.
_FROM_DATA = ("MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES")
# detectron2's key, and the node of the box loss that may not read it.
_BETAS = {
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "MODEL.BALANCED.BOX_LOSS",
    "MODEL.RPN.SMOOTH_L1_BETA": "MODEL.BALANCED.RPN.BOX_LOSS",
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": "MODEL.BALANCED.RETINANET.BOX_LOSS",
}


def run_key(cfg: CfgNode, eval_of: str = "") -> str:
    """Ten hexadecimal digits, equal for configs whose runs are the same but for their seed.

    Args:
        cfg: a complete config, before or after a run (its config.yaml, loaded over the defaults).
        eval_of: the key of the training whose weights are evaluated; empty for a training.
    """
    content = json.dumps([identity(cfg), eval_of], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def identity(cfg: CfgNode) -> Dict[str, Any]:
    """``{KEY.PATH: plain value}`` of the settings that a result depends on.

    What is at its default is left out, also of a component's arguments, so that a setting that a later version adds
    changes no key; so is a beta that the chosen box loss does not read. A data set given by paths is its annotation
    file's content and the name of its image folder.
    """
    settings = {key: _plain(value) for key, value in flatten(cfg).items() if not _is_bookkeeping(key)}
    _drop_default_arguments(settings)
    _name_data_by_content(settings)
    defaults = _defaults()
    return {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}


def _is_bookkeeping(key: str) -> bool:
    return key in _BOOKKEEPING or key.startswith(("ANALYSIS.", "TRACKING."))


@functools.lru_cache(maxsize=None)
def _defaults() -> Dict[str, Any]:
    return {key: _plain(value) for key, value in flatten(get_balanced_cfg()).items()}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _drop_default_arguments(settings: Dict[str, Any]) -> None:
    registries = spec_registries()
    chosen = {key: registry.get(settings[f"{key}.NAME"]) for key, registry in registries.items()
              if settings.get(f"{key}.NAME")}
    for key, target in {**chosen, "MODEL.BALANCED.FPN": BalancedFPN, "MODEL.BALANCED.PAFPN": PAFPN}.items():
        for name, parameter in signature_parameters(target).items():
            full_key = f"{key}.{name.upper()}"
            if full_key in settings and settings[full_key] == _plain(parameter.default):
                del settings[full_key]
    for beta, key in _BETAS.items():
        if key in chosen and not hasattr(chosen[key], "smooth_l1_beta_argument"):
            del settings[beta]


def _name_data_by_content(settings: Dict[str, Any]) -> None:
    if settings["DATASETS.TRAIN_JSON"] and not settings["DATASETS.VAL_JSON"]:
        settings["DATASETS.TEST"] = []  # what a run makes of it
    for split, name in (("TRAIN", "own_train"), ("VAL", "own_val")):
        file = settings.pop(f"DATASETS.{split}_JSON")
        folder = settings.pop(f"DATASETS.{split}_IMAGES")
        if file:
            settings[f"DATASETS.{'TEST' if split == 'VAL' else split}"] = [name]
            settings[f"data {split}"] = [_content_hash(file), os.path.basename(os.path.normpath(folder))]
            for key in _FROM_DATA:
                settings.pop(key, None)


def _content_hash(path: str) -> str:
    path = os.path.expanduser(path)
    beside_the_checkout = os.path.join(ROOT, path)
    found = path if os.path.exists(path) else beside_the_checkout
    return _hash_of(found, os.path.getmtime(found)) if os.path.exists(found) else f"missing: {path}"


@functools.lru_cache(maxsize=None)
def _hash_of(path: str, _modified: float) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
