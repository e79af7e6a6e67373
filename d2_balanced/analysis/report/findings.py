"""What is out of balance, in words. Each symptom has one rule, and each verdict shows its numbers.

All limits are in ``LIMITS``. They are our rules of thumb, not the papers'. They decide what is worth trying. Only a
comparison of trained detectors tells whether it helps.
"""

from __future__ import annotations

import math
from typing import Dict, FrozenSet, List, NamedTuple, Sequence

from .evidence import Evidence, evidence_of
from .rules_of_boxes import BOX_RULES
from .rules_of_samples import SAMPLE_RULES
from .treatments import TREATMENTS, Treatment, adapted, refused_beside
from .verdicts import LIMITS, Rule, Verdict

__all__ = ["LIMITS", "RULES", "Finding", "judge"]

RULES: Sequence[Rule] = (*SAMPLE_RULES, *BOX_RULES)


class Finding(NamedTuple):
    """The verdict of one rule.

    ``kind``: "suggests", "balanced" or "unknown"; ``treatments``: to be tried, as they are switched on beside what is
    on; ``in_use``: names of those that are on; ``refused``: names of those that cannot be built beside what is on, and
    the components that are in their way.
    """

    title: str
    kind: str
    text: str
    treatments: List[Treatment]
    in_use: List[str]
    refused: Dict[str, List[str]]


def judge(data) -> List[Finding]:
    """The findings of every rule on ``gather.RunData``, in the order of ``RULES``."""
    evidence = evidence_of(data)
    return [_finding(rule, rule.judge(evidence), evidence) for rule in RULES]


def _finding(rule: Rule, verdict: Verdict, evidence: Evidence) -> Finding:
    if math.isnan(verdict.value):
        return Finding(rule.title, "unknown", verdict.text, [], [], {})
    if not verdict.out_of_balance:
        return Finding(rule.title, "balanced", verdict.text, [], [], {})
    return Finding(rule.title, "suggests", f"{verdict.text} {rule.advice}", *_treatments(rule, evidence.components))


def _treatments(rule: Rule, components: FrozenSet[str]):
    """The treatments to try, those in use and those refused, as ``Finding`` has them."""
    all_of_rule = [TREATMENTS[name] for name in rule.treatments]
    in_use = [treatment.name for treatment in all_of_rule if treatment.component in components]
    others = [treatment for treatment in all_of_rule if treatment.name not in in_use]
    refused = {treatment.name: refused_beside(treatment, components) for treatment in others}
    to_try = [adapted(treatment, components) for treatment in others if not refused[treatment.name]]
    return to_try, in_use, {name: beside for name, beside in refused.items() if beside}
