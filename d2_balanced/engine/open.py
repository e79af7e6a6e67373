"""The one door to what lies in files: a config, a checkpoint of it, the folder of a run.

    model = open_checkpoint(open_experiment("config.yaml", ["MODEL.DEVICE", "cpu"]), "model_final.pth")
    model = open_checkpoint(open_run("output/first"))

Which config system a file is of is known here only: LazyConfigs end in .py, and one that a run has saved as YAML is
recognised by what is in it.
"""

from __future__ import annotations

import os
from typing import Callable, Mapping, Optional, Sequence

from torch import nn

from ..config import ConfigError, load_lazy, load_yaml
from ..config.lazy_saved import is_saved_lazy, lazy_of_saved
from ..config.yaml_files import read_yaml, require_file
from ..utils.errors import doing
from .checkpoint import BalancedCheckpointer, checkpoints_in
from .experiment import Experiment, OwnData
from .from_lazy import LazyExperiment
from .from_yacs import YacsExperiment
from .start import choose_device

__all__ = ["load_weights", "open_checkpoint", "open_experiment", "open_run", "saved_seed"]

CONFIG = "config.yaml"


def open_experiment(config_file: str, overrides: Sequence[str] = (), own_data: OwnData = OwnData()) -> Experiment:
    """The checked config in a file, which is read, or executed, once. Nothing else is read yet.

    Args:
        config_file: ``.yaml`` or ``.yml`` (yacs, or what a run of either config system has saved), or ``.py``.
        overrides: ``["KEY.PATH", "value", ...]`` over yacs, ``["key.path=value", ...]`` over a LazyConfig.
        own_data: the paths that are given replace those of the config.

    Raises ``ConfigError`` for a file that is not there or is of another kind, and for what is wrong in it.
    """
    require_file(config_file)
    ending = os.path.splitext(config_file)[1]
    if ending == ".py":
        return LazyExperiment.from_config(load_lazy(config_file), overrides, own_data)
    if ending not in (".yaml", ".yml"):
        raise ConfigError(f"Config file {config_file!r} has to end in .py (LazyConfig) or .yaml.")
    return _of_yaml(config_file, read_yaml(config_file), overrides, own_data)


def _of_yaml(path: str, settings: Mapping, overrides: Sequence[str], own_data: OwnData = OwnData()) -> Experiment:
    """The experiment of a YAML file with this content."""
    if is_saved_lazy(settings):
        return LazyExperiment.from_config(lazy_of_saved(settings, path), overrides, own_data)
    return YacsExperiment.from_config(load_yaml(path, settings=settings), overrides, own_data)


def open_run(folder: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a finished or stopped run, from the config.yaml in its folder, wherever that lies now.

    Its weights are the run's last checkpoint ("" if there is none), its output folder is ``folder``. Raises
    ``ConfigError`` where the config is missing, was not saved by a run, or cannot be used any more.
    """
    path = os.path.join(folder, CONFIG)
    settings = read_yaml(path)
    if "MODEL" not in settings and not is_saved_lazy(settings):
        raise ConfigError(f"{path!r} is no config that a run has saved.")
    experiment = _of_yaml(path, settings, overrides)
    experiment.set_run(output_dir=folder, weights=next(iter(checkpoints_in(folder)), ""))
    return experiment


def saved_seed(folder: str) -> Optional[int]:
    """The seed of the run in this folder; None if there is none, or no config that can be read."""
    try:
        settings = read_yaml(os.path.join(folder, CONFIG))
    except ConfigError:
        return None
    seed = settings.get("SEED", (settings.get("train") or {}).get("seed"))
    return seed if isinstance(seed, int) and seed >= 0 else None


@doing("while opening the checkpoint")
def open_checkpoint(
    experiment: Experiment, weights: str = "", *, check: Optional[Callable[[nn.Module], object]] = None
) -> nn.Module:
    """The experiment's model on its device, or on the CPU where there is no GPU, with the weights of a checkpoint.

    Own data are registered first, for the number of classes. A seed that is still to be drawn becomes 0.

    Args:
        weights: path of the checkpoint, which then is ``experiment.settings.weights``; empty: the one that is there.
        check: is called with the model before its weights are read, and raises if this is no model to go on with.

    Raises ``ConfigError`` without any weights, ``DataError`` where own data cannot be registered, and
    ``CheckpointError`` unless the checkpoint has every weight of the model.
    """
    settings = experiment.settings
    weights = weights or settings.weights
    if not weights:
        raise ConfigError(
            "--weights is missing, and the config names none (MODEL.WEIGHTS, train.init_checkpoint): a random model "
            "finds nothing."
        )
    experiment.use_own_data()
    experiment.set_run(seed=max(settings.seed, 0), device=choose_device(settings.device))
    model = experiment.build_model()
    if check is not None:
        check(model)
    load_weights(model, weights)
    experiment.set_run(weights=weights)
    return model


def load_weights(model: nn.Module, path: str) -> None:
    """Load a checkpoint into a model that it has to fit whole. Raises ``CheckpointError`` if it does not."""
    BalancedCheckpointer(model).load(path, checkpointables=[], strict=True)
