"""What a detectron2 script of one's own needs of this package's trainer: hooks and a data loader (docs/LIBRARY.md)."""

from __future__ import annotations

import logging
from typing import List, Optional

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..config import get_balanced_cfg
from ..config.yacs import value_at
from ..data.loader import ExactTrainLoader
from ..modeling.balanced_keys import balanced_keys
from .from_lazy import lazy_annealing_settings
from .from_yacs import annealing_settings, build_yacs_loader
from .gradient_annealing import annealing_hooks
from .hooks import EndIteration
from .rng import ReseedEveryStep, resolve_seed

__all__ = ["balanced_hooks", "balanced_train_loader"]

logger = logging.getLogger(__name__)

_LOG_PERIOD = 20
# What only train_net.py reads of this project's keys.
_TRAIN_NET_KEYS = (
    "SOLVER.ACCUMULATE", "SOLVER.MAX_TO_KEEP", "ANALYSIS.RECORD", "DATASETS.TRAIN_JSON", "DATASETS.VAL_JSON",
    "DATASETS.STRICT", "TEST.BEST_METRIC", "TEST.PATIENCE", "TEST.IMS_PER_BATCH", "MODEL.LAYERS.PRECISION",
    "MODEL.LAYERS.CHANNELS_LAST", "MODEL.LAYERS.FOLD_FROZEN_NORM",
)  # fmt: skip


def balanced_hooks(cfg, *, seed: Optional[int] = None) -> List[HookBase]:
    """The hooks without which part of a config does nothing, for ``DefaultTrainer``, ``SimpleTrainer``, ``AMPTrainer``.

    Gradient annealing, where the config asks for it, and :class:`EndIteration`, after which adaptive components adapt.
    They go before the trainer's own hooks, so that a checkpoint has the state after the iteration. Take the two classes
    themselves where there is no config.

    Args:
        cfg: a yacs config with this project's keys, or a LazyConfig (its node ``train``).
        seed: also seed the model's draws at every step, as ``train_net.py`` does (:class:`ReseedEveryStep`).

    Raises ``ConfigError`` for settings that annealing refuses, and for a yacs config without this project's keys.
    Warns of settings that only ``train_net.py`` reads.
    """
    hooks = [] if seed is None else [ReseedEveryStep(seed)]
    if "MODEL" in cfg:
        balanced_keys(cfg)
        _warn_of_unread_keys(cfg)
        annealing = annealing_hooks(annealing_settings(cfg), "SOLVER.GRADIENT_ANNEALING")
        return [*hooks, *annealing, EndIteration(log_period=cfg.SOLVER.LOG_PERIOD)]
    annealing = annealing_hooks(lazy_annealing_settings(cfg), "train.gradient_annealing")
    return [*hooks, *annealing, EndIteration(log_period=cfg.train.get("log_period", _LOG_PERIOD))]


def balanced_train_loader(cfg: CfgNode) -> ExactTrainLoader:
    """The training loader of ``train_net.py``, for ``DefaultTrainer.build_train_loader``: the same images, in its order.

    Args:
        cfg: a yacs config with this project's keys; its ``SEED`` decides on the order; -1: a random one.
    """
    balanced_keys(cfg)
    if cfg.SEED < 0:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SEED = resolve_seed(cfg.SEED)
    return build_yacs_loader(cfg)


def _warn_of_unread_keys(cfg: CfgNode) -> None:
    defaults = get_balanced_cfg()
    unread = [key for key in _TRAIN_NET_KEYS if value_at(cfg, key) != value_at(defaults, key)]
    if unread:
        logger.warning("Only train_net.py reads %s; in a trainer of your own they change nothing.", ", ".join(unread))
