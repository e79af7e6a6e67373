"""An experiment from a LazyConfig (``.py``), with detectron2's nodes: model, dataloader, optimizer, ..."""

from __future__ import annotations

from collections import OrderedDict
from typing import Sequence

from detectron2.config import LazyConfig
from detectron2.evaluation import inference_on_dataset
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..config import ConfigError, data_defaults, load_lazy, train_defaults
from ..config.lazy_build import build_node
from ..config.lazy_targets import find_target, target_parameters, walk
from ..config.refusals import check_refusals_lazy
from ..config.yacs import flatten
from ..data.coco_paths import register_train_val
from ..utils.constructing import constructing
from .experiment import Experiment, OwnData, RunSettings
from .gradient_annealing import annealing_hooks
from .schedule import Schedule

__all__ = ["LazyExperiment"]

_NODES = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


class LazyExperiment(Experiment):
    """Wraps a complete LazyConfig, which it may change until the run starts.

    Settings of ``train`` and ``data`` that the file leaves out have their defaults. Raises ``ConfigError`` if one of
    the nodes ``model, dataloader, optimizer, lr_multiplier, train`` is missing.
    """

    def __init__(self, cfg: DictConfig):
        for node in _NODES:
            if node not in cfg:
                raise ConfigError(f"The LazyConfig has no {node!r}; it needs {', '.join(_NODES)}.")
        cfg.train = OmegaConf.merge(train_defaults(), cfg.train)
        cfg.data = OmegaConf.merge(data_defaults(), cfg.get("data", {}))
        self.cfg = cfg
        annealing_hooks(self._annealing, "train.gradient_annealing")
        check_refusals_lazy(cfg)

    @classmethod
    def from_file(cls, path: str, overrides: Sequence[str] = (), own_data: OwnData = OwnData()) -> LazyExperiment:
        """Load the file strictly, then the overrides ``["key.path=value", ...]``, then the paths of own data."""
        experiment = cls(load_lazy(path, overrides))
        for name, value in own_data._asdict().items():
            if value:
                experiment.cfg.data[name] = value
        experiment.reference_batch_size = load_lazy(path).dataloader.train.total_batch_size
        return experiment

    @property
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
            log_period=train.log_period,
            max_to_keep=train.checkpointer.max_to_keep or None,
            best_metric=train.best_metric,
            patience=train.patience,
            recording={key: value for key, value in train.record_imbalance.items() if key != "enabled"}
            if train.record_imbalance.enabled
            else {},
        )

    @property
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

    def set_run(self, *, seed=None, device=None, output_dir=None):
        if seed is not None:
            self.cfg.train.seed = seed
        if device is not None:
            self.cfg.train.device = device
        if output_dir is not None:
            self.cfg.train.output_dir = output_dir

    def use_own_data(self):
        data, loaders = self.cfg.data, self.cfg.dataloader
        train, val = register_train_val(data.train_json, data.train_images, data.val_json, data.val_images)
        if train is None and val is None:
            return
        if train is not None:
            loaders.train.dataset.names = train.name
        if val is not None:
            loaders.test.dataset.names = val.name
        else:
            loaders.test = loaders.evaluator = None
        for _, node in walk(self.cfg.model, "model"):
            # Where it refers to another node, that one is set.
            if "num_classes" in node and not OmegaConf.is_interpolation(node, "num_classes"):
                node.num_classes = (train or val).num_classes

    @property
    def train_datasets(self):
        return _names(self.cfg.dataloader.train.dataset)

    @property
    def test_datasets(self):
        test = self.cfg.dataloader.get("test")
        return _names(test.dataset) if test else ()

    @property
    def proposal_files(self):
        loaders = (self.cfg.dataloader.get(name) for name in ("train", "test"))
        datasets = [loader.dataset for loader in loaders if loader]
        return [(_names(d), tuple(d.proposal_files)) for d in datasets if d.get("proposal_files")]

    @property
    def num_classes(self):
        numbers = {node.num_classes for _, node in walk(self.cfg.model, "model") if "num_classes" in node}
        if len(numbers) > 1:
            raise ConfigError(f"num_classes differs within the model: {sorted(numbers)}.")
        return numbers.pop() if numbers else None

    @property
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

    def build_model(self):
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
        multiplier = build_node(self.cfg.lr_multiplier, "lr_multiplier")
        with constructing("lr_multiplier", {}):
            return LRMultiplier(optimizer, multiplier, max_iter=self.cfg.train.max_iter)

    @property
    def _annealing(self):
        return {name: value for name, value in self.cfg.train.gradient_annealing.items() if name != "_target_"}

    def build_method_hooks(self, model):
        return annealing_hooks(self._annealing, "train.gradient_annealing", model)

    def evaluate(self, model):
        results = OrderedDict()
        if self.test_datasets:
            loader = build_node(self.cfg.dataloader.test, "dataloader.test")
            evaluator = build_node(self.cfg.dataloader.evaluator, "dataloader.evaluator")
            results.update(inference_on_dataset(model, loader, evaluator))
        return results

    def describe(self):
        plain = {name: OmegaConf.to_container(self.cfg[name]) for name in ("train", "data")}
        defaults = flatten({"train": train_defaults(), "data": data_defaults()})
        changed = {key: value for key, value in flatten(plain).items() if value != defaults.get(key)}
        return "\n".join(f"{key}: {value!r}" for key, value in sorted(changed.items()))

    def save_config(self, path):
        LazyConfig.save(self.cfg, path)


def _names(dataset) -> tuple:
    names = dataset.get("names", ())  # a data set that is not registered by name is not checked
    return tuple(names) if isinstance(names, (list, tuple, ListConfig)) else (names,)
