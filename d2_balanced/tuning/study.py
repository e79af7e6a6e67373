"""Which values an arm tries next. What was tried is in an SQLite file that Optuna and its dashboard read."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ..utils.errors import ConfigError
from ..utils.extras import import_extra
from .spaces import Choices

__all__ = ["Study", "Tried", "possible_trials", "require_optuna"]

_LARGEST_SEED = 2**31


class Tried(NamedTuple):
    """A trial of an arm: its number from 0, its values by key; ``score`` is None until it has been told."""

    number: int
    values: Dict[str, Any]
    score: Optional[float]
    note: str = ""


def require_optuna():
    """The library; ``InstallError`` without it."""
    optuna = import_extra("optuna", "tune", "d2_balanced tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def possible_trials(spaces: Mapping[str, Any]) -> float:
    """How many different trials there are: infinity where one of the keys has a range."""
    return math.prod(len(s.values) if isinstance(s, Choices) else math.inf for s in spaces.values())


class Study:
    """The trials of one arm. What is asked for depends on seed, number and earlier results alone, however often the
    process was ended in between.

    Listed values: every combination once, in an order drawn with the seed. With a range: the config's own values first
    (``own``), then points that cover the ranges evenly (Halton) until half of the trials are done, then those that a
    tree-structured Parzen estimator expects most of.

    Args:
        path: the SQLite file, shared by all arms.
        total: trials of the arm, ``possible_trials`` at most.
    """

    def __init__(self, path: str, arm: str, spaces: Mapping[str, Any], own: Mapping[str, Any], seed: int, total: int):
        self._optuna = require_optuna()
        self._spaces, self._own, self._seed, self._total = spaces, own, seed, total
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            self._study = self._optuna.create_study(
                storage=f"sqlite:///{path}", study_name=arm, direction="maximize", load_if_exists=True
            )

    def tried(self) -> List[Tried]:
        """All trials that were started, in their order."""
        waiting = self._optuna.trial.TrialState.WAITING
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != waiting]
        return [Tried(t.number, dict(t.params), t.value, t.user_attrs.get("note", "")) for t in trials]

    def ask(self) -> Tried:
        """A new trial, which is written down as begun."""
        started = len(self.tried())
        point = self._planned(started)
        if point is not None and started == len(self._study.get_trials(deepcopy=False)):  # else it is waiting already
            self._study.enqueue_trial(point)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=_mixed(self._seed, started), n_startup_trials=1)
        trial = self._study.ask({key: self._distribution(space) for key, space in self._spaces.items()})
        return Tried(trial.number, dict(trial.params), None)

    def tell(self, number: int, score: float, note: str = "") -> None:
        """The result of a trial that had none; higher is better."""
        trial = self._optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        if note:
            trial.set_user_attr("note", note)
        self._study.tell(number, score)

    def _planned(self, number: int) -> Optional[Dict[str, Any]]:
        """The values of the trial ``number``; None: they follow from the results."""
        if possible_trials(self._spaces) < math.inf:
            return self._combination(number)
        if number == 0 and self._own:
            return dict(self._own)
        if number >= max(1, self._total // 2):
            return None
        from scipy.stats import qmc

        points = qmc.Halton(d=len(self._spaces), scramble=True, seed=_mixed(self._seed, 0)).random(number + 1)
        return {key: space.at(float(place)) for (key, space), place in zip(self._spaces.items(), points[number])}

    def _combination(self, number: int) -> Dict[str, Any]:
        combinations = list(itertools.product(*(space.values for space in self._spaces.values())))
        random.Random(self._seed).shuffle(combinations)
        if number >= len(combinations):
            raise ConfigError(f"There are {len(combinations)} combinations of the listed values only.")
        return dict(zip(self._spaces, combinations[number]))

    def _distribution(self, space):
        distributions = self._optuna.distributions
        if isinstance(space, Choices):
            return distributions.CategoricalDistribution(space.values)
        if space.whole:
            return distributions.IntDistribution(int(space.low), int(space.high), log=space.log)
        return distributions.FloatDistribution(space.low, space.high, log=space.log)


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % _LARGEST_SEED
