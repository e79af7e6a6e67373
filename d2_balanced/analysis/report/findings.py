"""What is out of balance, in words. Each symptom has one rule, and each verdict shows its numbers.

All limits are in ``LIMITS``. They are our rules of thumb, not the papers'. They decide what is worth trying. Only a
comparison of trained detectors tells whether it helps.
"""

from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Optional, Sequence

from ...engine.experiment import Experiment
from .evidence import Evidence, evidence_of
from .rules_of_boxes import BOX_RULES
from .rules_of_samples import SAMPLE_RULES
from .treatments import TREATMENTS, Treatment, beside
from .verdicts import LIMITS, Rule, Verdict, too_little_training, unknown

__all__ = ["LIMITS", "RULES", "Finding", "judge"]

RULES: Sequence[Rule] = (*SAMPLE_RULES, *BOX_RULES)


class Finding(NamedTuple):
    """The verdict of one rule.

    ``kind``: "suggests", "balanced" or "unknown"; ``treatments``: to be tried, as they are switched on beside what is
    on; ``in_use``: names of those that are on; ``refused``: names of those that cannot be built beside it, and why.
    """

    title: str
    kind: str
    text: str
    treatments: List[Treatment]
    in_use: List[str]
    refused: Dict[str, str]


def judge(data, experiment: Optional[Experiment] = None) -> List[Finding]:
    """The findings of every rule on ``gather.RunData``, in the order of ``RULES``.

    Args:
        experiment: the run's config, on which the treatments are tried.
    """
    evidence = evidence_of(data)
    return [_finding(rule, rule.judge(evidence), evidence, experiment) for rule in RULES]


def _finding(rule: Rule, verdict: Verdict, evidence: Evidence, experiment) -> Finding:
    untrained = "" if rule.of_data else too_little_training(evidence)
    if untrained or math.isnan(verdict.value):
        verdict = unknown(untrained or verdict.text)
        return Finding(rule.title, "unknown", verdict.text, [], [], {})
    if not verdict.out_of_balance:
        return Finding(rule.title, "balanced", verdict.text, [], [], {})
    all_of_rule = [TREATMENTS[name] for name in rule.treatments]
    in_use = [treatment.name for treatment in all_of_rule if treatment.component in evidence.components]
    others = [treatment for treatment in all_of_rule if treatment.name not in in_use]
    others = [beside(treatment, evidence.components, experiment) for treatment in others]
    to_try = [treatment for treatment in others if not treatment.refusal]
    refused = {treatment.name: treatment.refusal for treatment in others if treatment.refusal}
    return Finding(rule.title, "suggests", f"{verdict.text} {rule.advice}", to_try, in_use, refused)
