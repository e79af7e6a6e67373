"""A tuning from its arguments to its results; a killed one goes on where it was."""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Any, Dict, List, Sequence, Tuple

from ..engine.experiment import Experiment
from ..engine.lock import hold_folder
from ..engine.run import given_data
from ..engine.start import refuse_other_run
from ..evaluation.write_results import write_text
from ..tables.execute import Interrupted, execute, last_lines
from ..tables.state import keep_final_only
from ..utils.command import FAULT, MISUSE
from ..utils.errors import OutputError, UsageError
from ..utils.json_file import read_json
from . import BEGUN, MAY_CHANGE, TRIALS
from .arms import Arm, check_arms, parse_arms, with_spaces
from .results import describe, write
from .study import Study, Tried, possible_trials, require_optuna
from .trial import Settings, Trial, training_words

__all__ = ["tune"]

STUDIES = "tuning.sqlite3"
INTERRUPTED = 130


def tune(args: argparse.Namespace) -> int:
    """Run what is left of the tuning; returns its exit status."""
    require_optuna()
    own_data, said = given_data(args)
    print("".join(f"{line}\n" for lines in said for line in lines), end="")
    arms = parse_arms(args.arm, args.config_file, args.opts, args.add)
    experiments = {arm.name: arm.experiment(own_data) for arm in arms}
    arms = [with_spaces(arm, args.lr, args.search, experiments[arm.name]) for arm in arms]
    trials = args.trials or _all_trials(arms)
    check_arms(arms, args.search, own_data, trials)
    metric = args.metric or experiments[arms[0].name].settings.best_metric
    refuse_other_run(args.output_dir)
    with hold_folder(args.output_dir):
        _begin(args, arms, experiments, trials)
        settings = Settings(own_data, metric, args.seed, tuple(_more_words(args)))
        return _Tuning(args, arms, experiments, settings, trials).run()


def _more_words(args: argparse.Namespace) -> List[str]:
    epochs = [] if args.epochs is None else ["--epochs", f"{args.epochs:g}"]
    return epochs + ([] if args.num_gpus == 1 else ["--num-gpus", str(args.num_gpus)])


def _all_trials(arms: Sequence[Arm]) -> int:
    possible = min(possible_trials(arm.spaces) for arm in arms)
    return TRIALS if possible == math.inf else int(possible)


def _begin(args: argparse.Namespace, arms: Sequence[Arm], experiments: Dict[str, Experiment], trials: int) -> None:
    """Write down what was asked for; ``OutputError`` if the folder has a tuning of something else."""
    path = os.path.join(args.output_dir, BEGUN)
    arguments = {**vars(args), "trials": trials}
    now = {
        "arguments": arguments,
        "configs": {name: experiment.config_text() for name, experiment in experiments.items()},
        "spaces": {arm.name: {key: repr(space) for key, space in arm.spaces.items()} for arm in arms},
    }
    if os.path.isfile(path):
        before = read_json(path)
        was = before["arguments"]
        changed = [name for name, value in arguments.items()
                   if name not in (*MAY_CHANGE, "output_dir") and (was.get(name) or None) != (value or None)]
        changed += [f"the {what}" for what in ("configs", "spaces") if not changed and before[what] != now[what]]
        if changed:
            raise OutputError(
                f"{args.output_dir!r} has a tuning that was begun otherwise: {', '.join(changed)} changed. Choose "
                f"another folder, or go on with it: d2_balanced tune --output-dir {args.output_dir}"
            )
    write_text(path, json.dumps(now, indent=1) + "\n")


class _Tuning:
    """Rounds of one trial an arm, or of ``jobs`` trials where that is more; so no arm is ahead of another."""

    def __init__(self, args, arms: List[Arm], experiments: Dict[str, Experiment], settings: Settings, trials: int):
        self.folder, self.jobs, self.final_only = args.output_dir, args.jobs, args.final_only
        self.arms, self.experiments, self.settings, self.trials = arms, experiments, settings, trials
        path = os.path.join(self.folder, STUDIES)
        self.studies = {
            arm.name: Study(path, arm.name, arm.spaces, arm.own_values(experiments[arm.name]), args.seed, trials)
            for arm in arms
        }
        self.failed: List[str] = []

    def run(self) -> int:
        metric, seed = self.settings.metric, self.settings.seed
        print(f"{len(self.arms)} arm(s), {self.trials} trials each, seed {seed}, by {metric}", flush=True)
        try:
            while True:
                begun = [(arm, tried) for arm in self.arms for tried in self._next(arm)]
                if not begun:
                    break
                self._round(begun)
        except Interrupted:
            self._report()
            print(f"Stopped. It goes on with: d2_balanced tune --output-dir {self.folder}")
            return INTERRUPTED
        self._report()
        for label in self.failed:
            print(f"Failed, and tried again by the same command: {label}")
        return FAULT if self.failed else 0

    def _next(self, arm: Arm) -> List[Tried]:
        """The arm's trials of the next round: those that were begun and have no result, then new ones."""
        tried = self.studies[arm.name].tried()
        size = max(1, self.jobs // len(self.arms))
        open_ones = [each for each in tried if each.score is None and self._label(arm, each) not in self.failed]
        new = min(size - len(open_ones), self.trials - len(tried))
        return open_ones[:size] + [self.studies[arm.name].ask() for _ in range(new)]

    def _label(self, arm: Arm, tried: Tried) -> str:
        return self._trial(arm, tried).label

    def _trial(self, arm: Arm, tried: Tried) -> Trial:
        texts, experiment = arm.texts(tried.values), self.experiments[arm.name]
        folder = os.path.join(self.folder, "trials", arm.name, f"{tried.number + 1:03d}")
        own = {experiment.keys["seed"]: str(self.settings.seed)}
        if self.settings.metric != experiment.settings.best_metric:  # the trial's best checkpoint is by it, too
            own[experiment.keys["best_metric"]] = self.settings.metric
        overrides = experiment.words({**texts, **own})
        words = training_words(arm, overrides, self.settings, folder)
        shown = ", ".join(f"{key} {text}" for key, text in texts.items())
        return Trial(arm.name, tried.number, self.trials, folder, tuple(words), shown, self.settings.metric)

    def _round(self, begun: List[Tuple[Arm, Tried]]) -> None:
        trials = {self._trial(arm, tried): (arm, tried) for arm, tried in begun}
        results = execute(list(trials), self.jobs, _say)
        for trial, (arm, tried) in trials.items():
            outcome = trial.outcome()
            if outcome is None:
                _stop_if_misuse(trial, results[trial])
                self.failed.append(trial.label)
                continue
            self.studies[arm.name].tell(tried.number, outcome.score, outcome.note)
            print(f"{trial.label}: {outcome.note or f'{self.settings.metric} {outcome.score:.2f}'}", flush=True)
            if self.final_only:
                keep_final_only(trial.folder)

    def _report(self) -> Dict[str, Any]:
        tried = {arm.name: self.studies[arm.name].tried() for arm in self.arms}
        content = write(self.folder, self.arms, tried, self.settings, self.experiments)
        print(describe(content, self.folder))
        return content


def _say(line: str) -> None:
    if ": started, log in " in line or "failed" in line:
        print(line, flush=True)


def _stop_if_misuse(trial: Trial, result: str) -> None:
    """What a user has to mend is so in all trials, and none of them is begun then."""
    if f"with status {MISUSE}," in result:
        raise UsageError(f"{trial.label} was refused:\n{last_lines(trial.folder, 3)}")
