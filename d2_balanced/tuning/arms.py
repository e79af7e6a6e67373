"""The arms of a tuning: a config each, with what differs between them, and the spaces that are searched in it."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from ..engine.experiment import Experiment, OwnData
from ..engine.open import open_experiment
from ..utils.errors import ConfigError
from .spaces import Choices, Range, parse_rates, parse_search
from .study import possible_trials

__all__ = ["Arm", "check_arms", "parse_arms", "with_spaces"]

LR = "lr"  # what the learning rate is called, whichever the config system
_KEPT = ("seed", "output_dir", "device", "max_iter", "batch_size", "patience", "best_metric", "eval_period")
_SAME = {"max_iter": "iterations", "batch_size": "images an iteration"}  # what a trial costs
_FACTOR = 4  # from the config's learning rate to the ends of the range, unless it is given


class Arm(NamedTuple):
    """``spaces``: ``{key: Choices or Range}``, in the order in which they are searched."""

    name: str
    config_file: str
    fragments: Tuple[str, ...] = ()
    overrides: Tuple[str, ...] = ()
    spaces: Mapping[str, Any] = {}

    def experiment(self, own_data: OwnData, values: Mapping[str, str] = {}) -> Experiment:
        """The arm's checked config with these values; ``ConfigError``, which names the arm, for what it refuses."""
        try:
            plain = open_experiment(self.config_file, self.overrides, own_data, self.fragments)
            if not values:
                return plain
            words = [*self.overrides, *plain.words(values)]
            return open_experiment(self.config_file, words, own_data, self.fragments)
        except ConfigError as error:
            raise ConfigError(f"Arm {self.name!r}: {error}") from error

    def texts(self, values: Mapping[str, Any]) -> Dict[str, str]:
        """The values as they stand on a command line."""
        return {key: space.text(values[key]) for key, space in self.spaces.items()}

    def own_values(self, experiment: Experiment) -> Dict[str, Any]:
        """The config's own values; empty unless all of them are in their spaces."""
        found = {key: _in(space, experiment.value_of(key)) for key, space in self.spaces.items()}
        return {} if None in found.values() else found


def _in(space, value):
    if isinstance(space, Choices):
        return next((text for text in space.values if text == str(value)), None)
    return value if isinstance(value, (int, float)) and space.low <= value <= space.high else None


def parse_arms(given: Sequence[str], config_file: str, overrides: Sequence[str], fragments: Sequence[str]) -> List[Arm]:
    """Each ``NAME`` or ``NAME=WORDS``: the words may be ``--config-file FILE``, ``--add FRAGMENT``, and overrides.

    What is given for all arms comes before an arm's own. Without any arm there is one, ``tuned``.
    """
    arms = [_arm(text, config_file, overrides, fragments) for text in given or ["tuned"]]
    names = [arm.name for arm in arms]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"--arm {twice[0]} is given twice.")
    return arms


def _arm(text: str, config_file: str, overrides: Sequence[str], fragments: Sequence[str]) -> Arm:
    name, _, words = text.partition("=")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--arm {text!r}: write NAME or NAME='WORDS'; a name has letters, digits and _.+- only.")
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.arm = name
    parser.add_argument("--config-file", default=config_file)
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    try:
        own = parser.parse_args(shlex.split(words))
    except ValueError as error:  # a quote that is not closed
        raise ConfigError(f"--arm {text!r}: {error}.") from error
    if not own.config_file:
        raise ConfigError(f"--config-file is missing, and arm {name!r} has none of its own.")
    return Arm(name, own.config_file, (*fragments, *own.add), (*overrides, *own.opts))


class _Parser(argparse.ArgumentParser):
    arm = ""

    def error(self, message) -> NoReturn:
        raise ConfigError(f"--arm {self.arm}: {message}.")


def with_spaces(arm: Arm, lr: Optional[str], search: Sequence[str], experiment: Experiment) -> Arm:
    """The arm with what is searched in it: the learning rate (``lr``: None: around the config's), then named keys.

    Args:
        search: ``KEY=SPACE``, or ``ARM:KEY=SPACE`` for one arm.

    Raises ``ConfigError`` for a key that is not to be tuned, or is set as well.
    """
    spaces: Dict[str, Any] = {}
    rate = experiment.keys[LR]
    if lr != "none":
        own = experiment.schedule.lr
        spaces[rate] = (
            parse_rates(lr) if lr else Range(own / _FACTOR, own * _FACTOR, True, False)
        )
    for key, space in _searched(arm.name, search):
        if key in (LR, rate) or key in spaces:
            raise ConfigError(f"--search {key}: is given twice; the learning rate is --lr.")
        kept = [name for name in _KEPT if experiment.keys[name] == key]
        if kept or key.startswith(("DATASETS.", "data.")):
            raise ConfigError(f"--search {key}: is the same in all trials, or they could not be compared.")
        spaces[key] = space
    if not spaces:
        raise ConfigError(f"Nothing is searched in arm {arm.name!r}: with --lr none, give --search KEY=a,b,c.")
    _refuse_set(arm, {*spaces, *(experiment.keys[name] for name in ("seed", "output_dir"))})
    return arm._replace(spaces=spaces)


def _searched(arm: str, search: Sequence[str]):
    for of_arm, key, space in map(parse_search, search):
        if of_arm in (None, arm):
            yield key, space


def _refuse_set(arm: Arm, keys) -> None:
    words = [word.partition("=")[0] if "=" in word else word for word in arm.overrides]
    both = sorted(set(words) & set(keys))
    if both:
        raise ConfigError(f"Arm {arm.name!r} sets {both[0]}, which the tuning sets itself; leave it out.")


def check_arms(arms: Sequence[Arm], search: Sequence[str], own_data: OwnData, trials: int) -> None:
    """Refuse, before time is spent, what would spoil the comparison, and values that a config or component refuses."""
    names = [arm.name for arm in arms]
    for text in search:
        of_arm = parse_search(text).arm
        if of_arm is not None and of_arm not in names:
            raise ConfigError(f"--search {text}: there is no arm {of_arm!r}, only {', '.join(names)}.")
    first, *others = [arm.experiment(own_data) for arm in arms]
    for arm, experiment in zip(arms[1:], others):
        _require_same(names[0], first, arm.name, experiment)
    for arm in arms:
        _check(arm, arm.experiment(own_data), trials)
        _try_values(arm, own_data)


def _require_same(name: str, first: Experiment, other_name: str, other: Experiment) -> None:
    pairs = {what: [_cost(e, field) for e in (first, other)] for field, what in _SAME.items()}
    pairs["data"] = [(e.own_data, *([] if e.own_data.train_json else [tuple(e.train_datasets), tuple(e.test_datasets)]))
                     for e in (first, other)]  # fmt: skip
    for what, (one, two) in pairs.items():
        if one != two:
            raise ConfigError(
                f"Arms {name!r} and {other_name!r} have different {what} ({one}, {two}): each gets the same budget."
            )


def _cost(experiment: Experiment, field: str):
    return experiment.schedule.max_iter if field == "max_iter" else experiment.settings.batch_size


def _check(arm: Arm, experiment: Experiment, trials: int) -> None:
    patience = experiment.keys["patience"]
    if experiment.settings.patience:
        raise ConfigError(f"Arm {arm.name!r}: {patience} ends some trials before others; set it to 0.")
    if not (experiment.own_data.val_json or (experiment.test_datasets and not experiment.own_data.train_json)):
        raise ConfigError("There is nothing to evaluate on: give --val-json and --val-images, or DATASETS.TEST.")
    possible = possible_trials(arm.spaces)
    if trials > possible:
        raise ConfigError(
            f"--trials {trials}: arm {arm.name!r} has {possible} combinations of its listed values only; all arms get "
            f"the same number: --trials {possible} or fewer, or more values."
        )


def _try_values(arm: Arm, own_data: OwnData) -> None:
    """Every listed value, and the ends of every range, on the config, beside the first values of the other keys."""
    first = {key: space.checked[0] for key, space in arm.spaces.items()}
    tried: List[Dict[str, str]] = []
    for key, space in arm.spaces.items():
        tried += [{**first, key: value} for value in space.checked]
    for values in [v for k, v in enumerate(tried) if v not in tried[:k]]:
        experiment = arm.experiment(own_data, values)
        try:
            experiment.build_without_memory()
        except ConfigError as error:
            shown = ", ".join(f"{key} {value}" for key, value in values.items())
            raise ConfigError(f"Arm {arm.name!r} with {shown}: {error}") from error
