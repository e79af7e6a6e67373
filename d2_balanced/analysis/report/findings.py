"""What is out of balance, in words: one rule a symptom, each with the numbers that it rests on.

The limits are all in ``LIMITS``. They are rules of thumb of ours, not of the papers: they decide what is worth
trying, and only a comparison of trained detectors tells whether it helps.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Sequence

from .evidence import Evidence, evidence_of
from .rules_of_boxes import BOX_RULES
from .rules_of_samples import SAMPLE_RULES
from .treatments import TREATMENTS, Treatment
from .verdicts import LIMITS, Rule, Verdict

__all__ = ["LIMITS", "RULES", "Finding", "judge"]

RULES: Sequence[Rule] = (*SAMPLE_RULES, *BOX_RULES)


class Finding(NamedTuple):
    """The verdict of one rule.

    ``kind``: "suggests", "balanced" or "unknown"; ``treatments``: to be tried; ``in_use``: names of those that are on.
    """

    title: str
    kind: str
    text: str
    treatments: List[Treatment]
    in_use: List[str]


def judge(data) -> List[Finding]:
    """The findings of every rule on ``gather.RunData``, in the order of ``RULES``."""
    evidence = evidence_of(data)
    return [_finding(rule, rule.judge(evidence), evidence) for rule in RULES]


def _finding(rule: Rule, verdict: Verdict, evidence: Evidence) -> Finding:
    if math.isnan(verdict.value):
        return Finding(rule.title, "unknown", verdict.text, [], [])
    if not verdict.out_of_balance:
        return Finding(rule.title, "balanced", verdict.text, [], [])
    all_of_rule = [TREATMENTS[name] for name in rule.treatments]
    in_use = [treatment.name for treatment in all_of_rule if treatment.component in evidence.components]
    to_try = [treatment for treatment in all_of_rule if treatment.name not in in_use]
    return Finding(rule.title, "suggests", f"{verdict.text} {rule.advice}", to_try, in_use)
