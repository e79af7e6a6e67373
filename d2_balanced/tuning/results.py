"""What a tuning found: a table of all trials, the best values of every arm, and the commands that train with them."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any, Dict, List, Mapping, Optional, Sequence

from tabulate import tabulate

from ..evaluation.write_results import csv_text, write_text
from .arms import Arm
from .study import Tried
from .trial import Settings, training_words

__all__ = ["TABLE", "BEST", "best_of", "describe", "write"]

TABLE, BEST = "tuning.csv", "best.json"
_SEEDS = 4  # of the runs that are compared
_SEED = "_SEED_"  # stands for the shell's variable


def best_of(tried: List[Tried]) -> Optional[Tried]:
    """The trial with the highest score, the first of equals; None while no training ended well."""
    good = [trial for trial in tried if trial.score is not None and not trial.note]
    return max(good, key=lambda trial: trial.score) if good else None


def write(
    folder: str, arms: Sequence[Arm], tried: Mapping[str, List[Tried]], settings: Settings, experiments
) -> Dict[str, Any]:
    """``tuning.csv`` (all trials) and ``best.json`` in ``folder``; returns the content of the latter.

    ``tried`` and ``experiments`` are by the names of the arms.
    """
    keys = list(dict.fromkeys(key for arm in arms for key in arm.spaces))
    rows = [_row(arm, trial, keys, settings.metric) for arm in arms for trial in tried[arm.name]]
    write_text(os.path.join(folder, TABLE), csv_text(["arm", "trial", *keys, "metric", "score", "note"], rows))
    best = {arm.name: _best(folder, arm, tried[arm.name], settings, experiments[arm.name]) for arm in arms}
    content = {"metric": settings.metric, "seed": settings.seed, "arms": best}
    write_text(os.path.join(folder, BEST), json.dumps(content, indent=1) + "\n")
    return content


def _row(arm: Arm, trial: Tried, keys: Sequence[str], metric: str) -> List[Any]:
    texts = arm.texts(trial.values)
    note = trial.note or ("" if trial.score is not None else "not finished")
    return [arm.name, trial.number + 1, *[texts.get(key, "") for key in keys], metric, trial.score, note]


def _best(folder: str, arm: Arm, tried: List[Tried], settings: Settings, experiment) -> Dict[str, Any]:
    best = best_of(tried)
    counts = {"trials": sum(t.score is not None for t in tried), "diverged": sum(bool(t.note) for t in tried)}
    if best is None:
        return {**counts, "values": {}, "score": None, "at_the_end": [], "command": ""}
    texts = arm.texts(best.values)
    ends = [key for key, space in arm.spaces.items() if space.is_edge(best.values[key])]
    command = _command(os.path.join(folder, "compared", arm.name), arm, texts, settings, experiment)
    return {**counts, "values": texts, "score": best.score, "trial": best.number + 1, "at_the_end": ends,
            "command": command}  # fmt: skip


def _command(output: str, arm: Arm, texts: Mapping[str, str], settings: Settings, experiment) -> str:
    """A loop of the shell over seeds that were not tuned on."""
    overrides = experiment.words({**texts, experiment.keys["seed"]: _SEED})
    words = training_words(arm, overrides, settings, f"{output}/{_SEED}")
    seeds = [str(seed) for seed in range(1, _SEEDS + 2) if seed != settings.seed][:_SEEDS]
    return f"for seed in {' '.join(seeds)}; do d2_balanced train {' '.join(map(_quoted, words))}; done"


def _quoted(word: str) -> str:
    quoted = shlex.quote(word)
    return quoted.replace(_SEED, "'$seed'" if quoted.startswith("'") else "$seed")


def describe(content: Mapping[str, Any], folder: str) -> str:
    """What is printed at the end."""
    lines = []
    for name, best in content["arms"].items():
        lines.append("")
        if not best["trials"]:
            lines.append(f"{name}: no trial has ended yet.")
            continue
        if best["score"] is None:
            lines.append(f"{name}: none of {best['trials']} trials ended well; search lower learning rates.")
            continue
        values = ", ".join(f"{key} {value}" for key, value in best["values"].items())
        diverged = f", {best['diverged']} of them diverged" if best["diverged"] else ""
        lines.append(f"{name}: {values} has {content['metric']} {best['score']:.2f}, the best of {best['trials']} "
                     f"trials{diverged}. With seeds that were not tuned on:")  # fmt: skip
        lines += [f"  {key} is at the end of what was searched: search further." for key in best["at_the_end"]]
        lines += ["", f"    {best['command']}"]
    rows = [[name, best["trials"], best["diverged"], best["score"]] for name, best in content["arms"].items()]
    table = tabulate(rows, ["arm", "trials", "diverged", content["metric"]], floatfmt=".2f") if len(rows) > 1 else ""
    path = os.path.join(folder, TABLE)
    last = f"One seed a value: the digits choose a value, and say nothing of the arms. All trials: {path}"
    return "\n".join([table, *lines, "", last]).strip()
