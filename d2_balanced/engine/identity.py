"""What a run is: its config, its classes, its data. Every checkpoint carries it, and a resume is compared with it."""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from detectron2.utils import comm

from ..config.yacs import flatten
from ..config.yaml_files import parse_yaml
from ..data.identity import dataset_identity
from ..utils.errors import ConfigError
from .class_match import describe_classes
from .distributed import raise_in_all

__all__ = ["ABOUT", "RunIdentity", "changed_keys", "classes_of", "identity_in", "identity_of", "read_otherwise",
           "resume_changes"]

ABOUT = "about"
"""The entry of a checkpoint that holds a :class:`RunIdentity`, as a dict."""

Classes = Tuple[Tuple[int, str], ...]

# Keys that say where a run lies and what it starts from, not what it is.
_PLACES = ("OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS", "train.output_dir", "train.device", "train.init_checkpoint")
_READ_BY = (
    "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT", "ANCHOR_GENERATOR.SIZES", "ANCHOR_GENERATOR.ASPECT_RATIOS",
    "ANCHOR_GENERATOR.OFFSET", "BBOX_REG_WEIGHTS", "CLS_LOSS.NAME", "CLS_LOSS.FORM", "BOX_CODER.NAME",
    "model.pixel_mean", "model.pixel_std", "model.input_format", "anchor_generator.sizes", "anchor_generator.aspect_ratios",
    "anchor_generator.offset", "box2box_transform.weights", "cls_loss._target_", "cls_loss.form", "box2box_transform._target_",
)
_COMPARED = {"name", "images", "annotations", "digest"}  # of a ``DatasetIdentity``
_OTHER_RUN = (
    "To train from this checkpoint with other settings, give it as the initial weights (MODEL.WEIGHTS, "
    "train.init_checkpoint), with a new --output-dir and without --resume."
)


class RunIdentity(NamedTuple):
    """Plain values only, so that a checkpoint can hold them (``_asdict()``)."""

    config: str  # the whole config, as YAML
    classes: Classes  # (category id, name) in the order of the model's class indices; empty if the model knows none
    data: Tuple[Dict[str, Any], ...]  # ``DatasetIdentity`` of each training set, as a dict
    trained: Tuple[str, ...] = ()  # names of the parameters that train


def identity_of(experiment, model=None) -> RunIdentity:
    """The identity of an experiment whose own data are registered. All processes call it; the main one reads the data.

    Args:
        model: the built model, for the parameters that train.
    """
    error, sets = None, []
    if comm.is_main_process():
        try:
            sets = [dataset_identity(name)._asdict() for name in experiment.train_datasets]
        except Exception as found:
            error = found
    raise_in_all(error)
    sets = comm.all_gather(sets)[0]
    classes = sets[0]["classes"] if sets and experiment.num_classes is not None else ()
    parameters = () if model is None else model.named_parameters()
    trained = tuple(sorted(name for name, parameter in parameters if parameter.requires_grad))
    return RunIdentity(experiment.config_text(), classes, tuple(sets), trained)


def classes_of(checkpoint: Mapping[str, Any]) -> Classes:
    """The classes that a checkpoint's model was trained on; empty where the checkpoint does not say."""
    about = checkpoint.get(ABOUT)
    classes = about.get("classes", ()) if isinstance(about, Mapping) else ()
    try:
        return tuple((int(number), str(name)) for number, name in classes)
    except (TypeError, ValueError):  # of another trainer
        return ()


def identity_in(checkpoint: Mapping[str, Any]) -> Optional[RunIdentity]:
    """The identity that a checkpoint carries; ``None`` in one that has none (of another trainer, or older)."""
    about = checkpoint.get(ABOUT)
    if not isinstance(about, Mapping) or not isinstance(about.get("config"), str):
        return None
    data = about.get("data")
    if not isinstance(data, (list, tuple)) or not all(isinstance(each, Mapping) and _COMPARED <= set(each) for each in data):
        return None
    return RunIdentity(about["config"], classes_of(checkpoint), tuple(data), tuple(about.get("trained", ())))


@functools.lru_cache(maxsize=4)
def _settings(config: str) -> Dict[str, Any]:
    """The flat settings of a config as YAML, which takes a while to parse; not to be changed."""
    return flatten(parse_yaml(config, "the config"))


def _are_of_one_kind(before: str, now: str) -> bool:
    """Whether both configs are yacs configs, or both LazyConfigs."""
    return bool(_settings(before).keys() & _settings(now).keys())


def changed_keys(before: str, now: str) -> Dict[str, Tuple[Any, Any]]:
    """``{key: (old value, new value)}`` of two configs as YAML, without the keys that only say where a run lies."""
    if not before or not now:
        return {}
    old, new = _settings(before), _settings(now)
    keys = [key for key in (*old, *(key for key in new if key not in old)) if key not in _PLACES]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def read_otherwise(before: RunIdentity, now: str) -> List[str]:
    """What says how images become a model's input, and its outputs scores and boxes, in the config that it was trained with
    and in the config ``now`` (YAML), where they differ: its weights fit both and mean something with one."""
    if not before.config or not _are_of_one_kind(before.config, now):
        return []
    changed = changed_keys(before.config, now)
    return [f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items() if key.endswith(_READ_BY)]


def resume_changes(before: RunIdentity, now: RunIdentity, accept_data: bool) -> List[str]:
    """What a resume changes of the run, in words; all of it can be carried out.

    Args:
        before, now: the identities of the checkpoint's run, and of what is given to resume it.
        accept_data: train on, although the training data are not those of the run.

    Raises ``ConfigError`` for what cannot change: the config system, classes, frozen layers, and training data that
    are not accepted.
    """
    changed = changed_keys(before.config, now.config)
    if len(changed) and not _are_of_one_kind(before.config, now.config):
        raise ConfigError(
            "This run was started with a config of the other kind (.yaml or .py). Resume it with that one, or without "
            "--config-file."
        )
    if before.classes != now.classes:
        raise ConfigError(
            f"This run cannot be resumed with other classes: it was trained on {describe_classes(before.classes)}, the data now "
            f"have {describe_classes(now.classes)}. {_OTHER_RUN}"
        )
    _refuse_other_parameters(before, now, changed)
    return _data_changes(before, now, accept_data) + [
        f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items()
    ]


def _refuse_other_parameters(before: RunIdentity, now: RunIdentity, changed) -> None:
    if not before.trained or before.trained == now.trained:
        return
    model = [f"{key} {old!r} -> {new!r}" for key, (old, new) in changed.items() if key.lower().startswith("model.")]
    differ = sorted(set(before.trained) ^ set(now.trained))
    raise ConfigError(
        f"This run cannot be resumed with another architecture or other frozen layers: {len(differ)} parameters train "
        "now and did not, or the other way round "
        f"({', '.join(differ[:3])}, ...). Changed: {'; '.join(model) or 'nothing of the model in the config'}. {_OTHER_RUN}"
    )


def _data_changes(before: RunIdentity, now: RunIdentity, accept: bool) -> List[str]:
    differences = []
    for old, new in zip(before.data, now.data):
        if old["digest"] != new["digest"]:
            differences.append(
                f"{new['name']} had {old['images']} images and {old['annotations']} annotations, and has "
                f"{new['images']} and {new['annotations']} now, not all the same ones"
            )
    if len(before.data) != len(now.data):
        differences.append(f"{len(before.data)} training set(s) became {len(now.data)}")
    if differences and not accept:
        raise ConfigError(
            f"This run cannot be resumed on other training data: {'; '.join(differences)}. To go on with them all the "
            f"same, add --accept-changed-data. {_OTHER_RUN}"
        )
    return differences
