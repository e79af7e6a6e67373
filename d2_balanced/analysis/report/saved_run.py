"""Config, model and last checkpoint of a run's folder."""

from __future__ import annotations

import os

import yaml
from omegaconf import OmegaConf

from ...config import ConfigError
from ...engine.build import check_data
from ...engine.checkpoint import BalancedCheckpointer
from ...engine.start import choose_device
from ...recording.hook import find_recorded_heads
from ...recording.recordable import make_recordable
from ...utils.errors import CheckpointError, DataError, UsageError

__all__ = ["load_saved_experiment", "open_run"]


class _Loader(yaml.SafeLoader):
    """Reads what LazyConfig saves; of Python's own types only tuples, so that reading runs no code."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _Loader.construct_yaml_seq)


def load_saved_experiment(path: str):
    """The experiment of a run's ``config.yaml``, of either config system, made recordable.

    Raises ``ConfigError`` where the file is missing or was not saved by a run.
    """
    from ...engine.from_lazy import LazyExperiment
    from ...engine.from_yacs import YacsExperiment

    if not os.path.isfile(path):
        raise ConfigError(f"There is no {path!r}.")
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path!r} cannot be read without running code: {error}") from error
    if isinstance(content, dict) and "MODEL" in content:
        experiment = YacsExperiment.from_file(path)
    elif isinstance(content, dict) and "model" in content:
        experiment = LazyExperiment(OmegaConf.create(content, flags={"allow_objects": True}))
    else:
        raise ConfigError(f"{path!r} is no config that a run has saved.")
    make_recordable(experiment)
    return experiment


def open_run(folder: str):
    """``(experiment, model, problem)`` of a run: the model has the last checkpoint's weights.

    Where something is missing, the parts that depend on it are ``None``, and ``problem`` says why; it also says what
    is wrong with the training images, which the model does not depend on. Raises ``ConfigError`` for a model that is no
    two-stage detector.
    """
    experiment = None
    try:
        experiment = load_saved_experiment(os.path.join(folder, "config.yaml"))
        experiment.use_own_data()
        experiment.set_run(device=choose_device(experiment.settings.device))
        model = experiment.build_model()
    except ImportError as error:  # of a LazyConfig's own component
        reason = f"The run's config needs what cannot be imported; add its folder to PYTHONPATH: {error}"
        return experiment, None, reason
    except UsageError as error:
        return experiment, None, f"The run's config or data could not be used: {error}"
    find_recorded_heads(model)
    try:
        weights = BalancedCheckpointer(model, folder, save_to_disk=False).get_checkpoint_file()
        if not weights:
            return experiment, None, "The run's folder has no checkpoint."
        BalancedCheckpointer(model).load(weights)
    except CheckpointError as error:
        return experiment, None, f"The run's checkpoint could not be used: {error}"
    try:
        check_data(experiment, experiment.train_datasets)
    except DataError as error:
        return experiment, model, f"The run's training images could not be used: {error}"
    return experiment, model, ""
