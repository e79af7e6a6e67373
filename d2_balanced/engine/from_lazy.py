"""An experiment from a LazyConfig (``.py``), with detectron2's nodes: model, dataloader, optimizer, ..."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any, Dict

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..config import ConfigError, apply_overrides, check_lazy, data_defaults, train_defaults
from ..config.lazy_build import build_node, reading, with_values
from ..config.lazy_fragments import add_lazy_fragment
from ..config.lazy_saved import lazy_text
from ..config.lazy_targets import find_target, target_parameters, walk
from ..config.refusals import check_refusals_lazy
from ..config.yacs import flatten
from ..evaluation.coco import INFERENCE
from ..modeling.roi_heads import BalancedROIHeads
from ..modeling.roi_heads.stages import CascadeStages
from ..modeling.sampling import RandomSampler
from ..utils.constructing import constructing
from .experiment import Experiment, OwnData, RunSettings
from .gradient_annealing import annealing_hooks
from .schedule import Schedule

__all__ = ["LazyExperiment", "lazy_annealing_settings"]

logger = logging.getLogger(__name__)

_ANNEALING = "train.gradient_annealing"
_NODES = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


class LazyExperiment(Experiment):
    """Wraps a complete LazyConfig, which it may change until the run starts.

    Settings of ``train`` and ``data`` that the file leaves out have their defaults. Raises ``ConfigError`` if one of
    the nodes ``model, dataloader, optimizer, lr_multiplier, train`` is missing.
    """

    system = "lazy"
    keys = {
        "lr": "optimizer.lr", "seed": "train.seed", "output_dir": "train.output_dir", "device": "train.device",
        "max_iter": "train.max_iter", "batch_size": "dataloader.train.total_batch_size", "patience": "train.patience",
        "best_metric": "train.best_metric", "eval_period": "train.eval_period",
    }  # fmt: skip

    def __init__(self, cfg: DictConfig):
        for node in _NODES:
            if node not in cfg:
                raise ConfigError(f"The LazyConfig has no {node!r}; it needs {', '.join(_NODES)}.")
        cfg.train = OmegaConf.merge(train_defaults(), cfg.train)
        cfg.data = OmegaConf.merge(data_defaults(), cfg.get("data", {}))
        super().__init__(cfg)
        _ = self.settings, self.schedule  # to hear at once of what is missing there, or leads nowhere
        annealing_hooks(lazy_annealing_settings(cfg), _ANNEALING)
        check_refusals_lazy(cfg)

    @staticmethod
    def _batch_size(cfg):
        return OmegaConf.select(cfg, "dataloader.train.total_batch_size")

    @staticmethod
    def _settings_of(cfg):
        return OmegaConf.to_container(cfg)

    @staticmethod
    def _add(cfg, path):
        add_lazy_fragment(cfg, path)

    @staticmethod
    def _override(cfg, overrides):
        if overrides:
            apply_overrides(cfg, overrides)
            check_lazy(cfg)

    @staticmethod
    def words(settings):
        return [f"{key}={value}" for key, value in settings.items()]

    def value_of(self, key):
        return OmegaConf.select(self.cfg, key)

    @property
    @reading("train")
    def settings(self):
        train = self.cfg.train
        return RunSettings(
            output_dir=train.output_dir,
            weights=train.init_checkpoint or "",
            device=train.device,
            seed=train.seed,
            batch_size=self.cfg.dataloader.train.total_batch_size,
            accumulate=train.accumulate,
            amp=train.amp.enabled,
            layers=dict(train.layers),
            log_period=train.log_period,
            max_to_keep=train.checkpointer.max_to_keep or None,
            test_batch_size=train.test_batch_size,
            best_metric=train.best_metric,
            patience=train.patience,
            test_aug={key: value for key, value in train.test_aug.items() if key != "enabled"},
            augmented_test=train.test_aug.enabled,
            tracking=dict(train.tracking),
            recording={key: value for key, value in train.record_imbalance.items() if key != "enabled"}
            if train.record_imbalance.enabled
            else {},
        )

    @property
    @reading("train")
    def schedule(self):
        train = self.cfg.train
        return Schedule(
            lr=self.cfg.optimizer.lr,
            max_iter=train.max_iter,
            steps=(),
            warmup_iters=0,
            eval_period=train.eval_period,
            checkpoint_period=train.checkpointer.period,
        )

    def set_schedule(self, schedule):
        train = self.cfg.train
        self.cfg.optimizer.lr, train.max_iter = schedule.lr, schedule.max_iter
        train.eval_period, train.checkpointer.period = schedule.eval_period, schedule.checkpoint_period

    def set_run(self, *, seed=None, device=None, output_dir=None, weights=None):
        given = {"seed": seed, "device": device, "output_dir": output_dir, "init_checkpoint": weights}
        self.cfg.train.update({name: value for name, value in given.items() if value is not None})

    @property
    def own_data(self):
        return OwnData(*(self.cfg.data[name] for name in OwnData._fields))

    def set_own_data(self, own_data):
        self.cfg.data.update({name: path for name, path in own_data._asdict().items() if path})

    def set_datasets(self, train, test):
        loaders = self.cfg.dataloader
        if train is not None:
            loaders.train.dataset.names = train
        if test is not None:
            self._test.dataset.names = test
        elif loaders.get("test"):
            loaders.test.dataset.names = []

    @property
    @reading("dataloader")
    def train_datasets(self):
        return _names(self.cfg.dataloader.train.dataset)

    @property
    @reading("dataloader")
    def test_datasets(self):
        test = self.cfg.dataloader.get("test")
        return _names(test.dataset) if test else ()

    @property
    def _test(self):
        test = self.cfg.dataloader.get("test")
        if not test:
            raise ConfigError("dataloader.test: the config has none, and so nothing to read images with in a test.")
        return test

    @property
    @reading("dataloader")
    def proposal_files(self):
        loaders = (self.cfg.dataloader.get(name) for name in ("train", "test"))
        datasets = [loader.dataset for loader in loaders if loader]
        return [(_names(d), tuple(d.proposal_files)) for d in datasets if d.get("proposal_files") and _names(d)]

    @property
    @reading("model")
    def num_classes(self):
        numbers = {node.num_classes for _, node in walk(self.cfg.model, "model") if "num_classes" in node}
        if len(numbers) > 1:
            raise ConfigError(f"num_classes differs within the model: {sorted(numbers)}.")
        return numbers.pop() if numbers else None

    @num_classes.setter
    def num_classes(self, number):
        for _, node in walk(self.cfg.model, "model"):
            # Where it refers to another node, that one is set.
            if "num_classes" in node.keys() and not OmegaConf.is_interpolation(node, "num_classes"):
                node.num_classes = number

    @property
    @reading("dataloader")
    def mask_format(self):
        mapper = self.cfg.dataloader.train.get("mapper") or {}
        return mapper.get("instance_mask_format", "polygon") if mapper.get("use_instance_mask") else None

    @property
    def strict_data(self):
        return self.cfg.data.strict

    def build_mapper(self, is_train):
        name = "train" if is_train else "test"
        loader = self.cfg.dataloader.get(name)
        return build_node(loader.mapper, f"dataloader.{name}.mapper") if loader and loader.get("mapper") else None

    def make_recordable(self):
        heads = self.cfg.model.get("roi_heads")
        if heads is None or "_target_" not in heads:
            return
        replaced = find_target(heads._target_, "model.roi_heads._target_")
        if replaced not in (StandardROIHeads, CascadeROIHeads):
            return
        heads._target_ = BalancedROIHeads
        heads.proposal_sampler = L(RandomSampler)()
        if replaced is CascadeROIHeads:
            matchers = heads.pop("proposal_matchers")
            heads.stages = L(CascadeStages)(ious=[matcher.thresholds[0] for matcher in matchers])
            heads.proposal_matcher = matchers[0]
            heads.box_head, heads.box_predictor = heads.pop("box_heads"), heads.pop("box_predictors")

    def record_in_training(self):
        self.make_recordable()
        self.cfg.train.record_imbalance.enabled = True

    def require_plain_sgd(self):
        optimizer = find_target(self.cfg.optimizer._target_, "optimizer")
        if "sgd" not in getattr(optimizer, "__name__", str(optimizer)).lower():
            raise ConfigError(
                f"--auto-scale-lr: optimizer is {optimizer.__name__}, but scaling the learning rate in proportion to "
                "the batch size holds for SGD only. Leave it out and set optimizer.lr yourself."
            )

    def build_loader(self):
        train = self.cfg.dataloader.train
        if "seed" in target_parameters(train, "dataloader.train") and "seed" not in train:
            train.seed = self.cfg.train.seed
        return build_node(train, "dataloader.train")

    def _build_model(self):
        return build_node(self.cfg.model, "model").to(self.cfg.train.device)

    @property
    def ddp_settings(self):
        return dict(self.cfg.train.ddp)

    def build_optimizer(self, model):
        self.cfg.optimizer.params.model = model
        try:
            return build_node(self.cfg.optimizer, "optimizer")
        finally:
            del self.cfg.optimizer.params["model"]  # the config is data again

    def build_scheduler(self, optimizer):
        warmup = self.cfg.lr_multiplier.get("warmup_length", 0)  # as a part of the training
        if warmup >= 1:
            logger.warning(
                "Warm-up (lr_multiplier.warmup_length %g) is not over before training ends: the learning rate never "
                "reaches optimizer.lr %g. Usually the length was computed from a number of iterations for a longer "
                "training: set it, too.", warmup, self.cfg.optimizer.lr,
            )  # fmt: skip
        multiplier = build_node(self.cfg.lr_multiplier, "lr_multiplier")
        with constructing("lr_multiplier", {}):
            return LRMultiplier(optimizer, multiplier, max_iter=self.cfg.train.max_iter)

    def build_method_hooks(self, model):
        return annealing_hooks(lazy_annealing_settings(self.cfg), _ANNEALING, model)

    def build_test(self, name, subfolder=INFERENCE):
        test, evaluator = self._test, self.cfg.dataloader.get("evaluator")
        of_name = {"names": name}
        if test.dataset.get("proposal_files"):
            of_name["proposal_files"] = [test.dataset.proposal_files[self.test_datasets.index(name)]]
        with contextlib.ExitStack() as stack:
            stack.enter_context(with_values(test.dataset, of_name))
            for node in evaluator if isinstance(evaluator, ListConfig) else [evaluator]:
                if node is not None:
                    stack.enter_context(with_values(node, _of_evaluator(node, name, subfolder)))
            return build_node(test, "dataloader.test"), build_node(evaluator, "dataloader.evaluator")

    def describe(self):
        plain = {name: OmegaConf.to_container(self.cfg[name]) for name in ("train", "data")}
        defaults = flatten({"train": train_defaults(), "data": data_defaults()})
        changed = {key: value for key, value in flatten(plain).items() if value != defaults.get(key)}
        return "\n".join(f"{key}: {value!r}" for key, value in sorted(changed.items()))

    def config_text(self):
        return lazy_text(self.cfg)

    def save_config(self, path):
        if self.config_text():
            super().save_config(path)
        else:
            LazyConfig.save(self.cfg, path)  # says so, and pickles it beside


def lazy_annealing_settings(cfg: DictConfig) -> Dict[str, Any]:
    """The arguments of ``GradientAnnealing`` in ``cfg.train.gradient_annealing``; without it, what means no annealing."""
    settings = {"initial": 1.0, **cfg.train.get("gradient_annealing", {})}
    return {name: value for name, value in settings.items() if name != "_target_"}


def _of_evaluator(node: DictConfig, name: str, subfolder: str) -> Dict[str, Any]:
    """What an evaluator's node gets for the data set ``name``; one without ``subfolder`` writes into that folder."""
    values = {"dataset_name": name} if "dataset_name" in node else {}
    if "subfolder" in target_parameters(node, "dataloader.evaluator"):
        values["subfolder"] = subfolder
    elif subfolder != INFERENCE and node.get("output_dir"):
        values["output_dir"] = os.path.join(node.output_dir, subfolder)
    return values


def _names(dataset) -> tuple:
    names = dataset.get("names", ())  # a data set that is not registered by name is not checked
    return tuple(names) if isinstance(names, (list, tuple, ListConfig)) else (names,)
