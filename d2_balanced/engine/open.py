"""The one door to what lies in files: a config, a checkpoint of it, the folder of a run.

    model = open_checkpoint(open_experiment("config.yaml", ["MODEL.DEVICE", "cpu"]), "model_final.pth")
    model = open_checkpoint(open_run("output/first"))

Which config system a file is of is known here only: LazyConfigs end in .py, and one that a run has saved as YAML is
recognised by what is in it.
"""

from __future__ import annotations

import logging
import os
from typing import Callable, Mapping, Optional, Sequence, Tuple

from torch import nn

from ..config import ConfigError, load_lazy, load_yaml
from ..config.lazy_saved import is_saved_lazy, lazy_of_saved
from ..config.yaml_files import parse_yaml, read_yaml, require_file
from ..utils.errors import CheckpointError, doing
from ..utils.shipped import shipped_file
from .checkpoint import BalancedCheckpointer
from .checkpoint_files import checkpoints_in, read_checkpoint
from .experiment import Experiment, OwnData
from .from_lazy import LazyExperiment
from .from_yacs import YacsExperiment
from .identity import classes_of, identity_in, read_otherwise
from .start import CONFIG, choose_device, configs_in

__all__ = [
    "load_weights", "open_checkpoint", "open_experiment", "open_of_checkpoint", "open_run", "saved_own_data", "saved_seed",
]  # fmt: skip

logger = logging.getLogger(__name__)


def open_experiment(
    config_file: str, overrides: Sequence[str] = (), own_data: OwnData = OwnData(), fragments: Sequence[str] = ()
) -> Experiment:
    """The checked config in a file, which is read, or executed, once. Nothing else is read yet.

    Args:
        config_file: ``.yaml`` or ``.yml`` (yacs, or what a run of either config system has saved), or ``.py``; a path,
            or the name of a config that comes with the package (``utils/shipped.py``; without an ending: yaml).
        overrides: ``["KEY.PATH", "value", ...]`` over yacs, ``["key.path=value", ...]`` over a LazyConfig.
        own_data: the paths that are given replace those of the config.
        fragments: paths or names of fragments, which are added to the config in their order, before the overrides:
            their settings to a yacs config, to a LazyConfig what the functions of their names do
            (``config/lazy_fragments.py``).

    Raises ``ConfigError`` for a file that is not there or is of another kind, and for what is wrong in it.
    """
    config_file = shipped_file(config_file)
    require_file(config_file)
    ending = os.path.splitext(config_file)[1]
    if ending == ".py":
        return LazyExperiment.from_config(load_lazy(config_file), overrides, own_data, fragments)
    if ending not in (".yaml", ".yml"):
        raise ConfigError(f"Config file {config_file!r} has to end in .py (LazyConfig) or .yaml.")
    return _of_yaml(config_file, read_yaml(config_file), overrides, own_data, fragments)


def _of_yaml(
    path: str, settings: Mapping, overrides: Sequence[str], own_data: OwnData = OwnData(), fragments: Sequence[str] = ()
) -> Experiment:
    """The experiment of a YAML file with this content."""
    if is_saved_lazy(settings):
        return LazyExperiment.from_config(lazy_of_saved(settings, path), overrides, own_data, fragments)
    return YacsExperiment.from_config(load_yaml(path, settings=settings), overrides, own_data, fragments)


def open_run(
    folder: str, overrides: Sequence[str] = (), own_data: OwnData = OwnData(), fragments: Sequence[str] = ()
) -> Experiment:
    """The experiment of a finished or stopped run, from the newest config in its folder, wherever that lies now.

    A config that is lost or damaged is taken from the checkpoint.

    Its weights are the run's last checkpoint ("" if there is none), its output folder is ``folder``. Raises
    ``ConfigError`` where the config is missing, was not saved by a run, or cannot be used any more.
    """
    path, settings = _saved_config(folder)
    experiment = _of_yaml(path, settings, overrides, own_data, fragments)
    experiment.set_run(output_dir=folder, weights=next(iter(checkpoints_in(folder)), ""))
    return experiment


def open_of_checkpoint(path: str) -> Experiment:
    """The experiment of a checkpoint, from the config that it carries; its weights are the checkpoint.

    Raises ``CheckpointError`` for a file that is none, or that carries no config.
    """
    about = identity_in(read_checkpoint(path))
    if about is None or not about.config:
        raise CheckpointError(f"{path!r} carries no config; give the folder of its run instead.")
    experiment = _of_yaml(path, parse_yaml(about.config, f"the config in {path}"), ())
    experiment.set_run(weights=path)
    return experiment


def _saved_config(folder: str) -> Tuple[str, Mapping]:
    """The name and content of a run's newest config; where none can be read, the one that its checkpoint carries."""
    problems = []
    for path in configs_in(folder):
        try:
            settings = read_yaml(path)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if "MODEL" in settings or is_saved_lazy(settings):
            return path, settings
        problems.append(f"{path!r} is no config that a run has saved")
    for path in checkpoints_in(folder):
        try:
            about = identity_in(read_checkpoint(path))
        except CheckpointError:
            continue
        if about is not None:
            logger.warning("The config is taken from %s: %s.", path, "; ".join(problems) or f"{folder!r} has no {CONFIG}")
            return path, parse_yaml(about.config, f"the config in {path}")
    if os.path.isfile(folder):
        raise ConfigError(f"{folder!r} is a file. A run is a folder, here perhaps {os.path.dirname(folder) or '.'!r}.")
    raise ConfigError("; ".join(problems) or f"There is no run in {folder!r}: {os.path.join(folder, CONFIG)!r} does not exist.")


def saved_own_data(folder: str) -> OwnData:
    """The paths of own data that the run in this folder trains on; empty where it has none, or there is no run."""
    try:
        settings = _saved_config(folder)[1]
    except ConfigError:
        return OwnData()
    node = settings.get("DATASETS") or settings.get("data") or {}
    found = {name: node.get(name.upper(), node.get(name)) for name in OwnData._fields}
    return OwnData(**{name: path for name, path in found.items() if isinstance(path, str)})


def saved_seed(folder: str) -> Optional[int]:
    """The seed of the run in this folder; None if there is none, or no config that can be read."""
    try:
        settings = _saved_config(folder)[1]
    except ConfigError:
        return None
    seed = settings.get("SEED", (settings.get("train") or {}).get("seed"))
    return seed if isinstance(seed, int) and seed >= 0 else None


@doing("while opening the checkpoint")
def open_checkpoint(
    experiment: Experiment,
    weights: str = "",
    *,
    check: Optional[Callable[[nn.Module], object]] = None,
    needs_data: bool = True,
) -> nn.Module:
    """The experiment's model on its device, or on the CPU where there is no GPU, with the weights of a checkpoint.

    Own data are registered first, for the number of classes; a checkpoint that knows its classes overrules it. They are
    ``experiment.classes`` then. A seed that is still to be drawn becomes 0.

    Args:
        weights: path of the checkpoint, which then is ``experiment.settings.weights``; empty: the one that is there.
        check: is called with the model before its weights are loaded, and raises if this is no model to go on with.
        needs_data: False registers own data only where the checkpoint does not know its classes: they may be gone.

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
    if needs_data:
        experiment.use_own_data()
    experiment.set_run(seed=max(settings.seed, 0), device=choose_device(settings.device))
    checkpoint = read_checkpoint(weights)
    experiment.classes = classes_of(checkpoint)
    about = identity_in(checkpoint)
    for change in read_otherwise(about, experiment.config_text()) if about else ():
        logger.warning("%s was trained with other settings, by which its outputs are read: %s", weights, change)
    if not experiment.classes:
        experiment.use_own_data()
    if experiment.classes and experiment.num_classes is not None:
        experiment.num_classes = len(experiment.classes)
    model = experiment.build_model()
    if check is not None:
        check(model)
    BalancedCheckpointer(model).use(checkpoint, weights, checkpointables=[], strict=True)
    experiment.set_run(weights=weights)
    return model


def load_weights(model: nn.Module, path: str) -> None:
    """Load a checkpoint into a model that it has to fit whole. Raises ``CheckpointError`` if it does not."""
    BalancedCheckpointer(model).load(path, checkpointables=[], strict=True)
