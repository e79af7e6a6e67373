"""The verdict of a rule, and the table of limits that all rules share."""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple, Sequence

from .evidence import Evidence

__all__ = ["LIMITS", "Rule", "Verdict", "above", "below", "count", "too_little_training", "unknown"]

LIMITS: Dict[str, float] = {
    # Fewer than so many samples, images or objects tell nothing.
    "samples": 100,
    "images": 10,
    # Less training, or a lower AP50 of an evaluation, than this: nothing is judged but the data.
    "iterations": 100,
    "ap50": 10,
    # Of the sampled negatives, the share that overlaps no object (IoU below 0.05).
    "easy_negatives": 0.6,
    # Positives an image in the first quarter, relative to the last.
    "early_positives": 0.75,
    # Positive proposals an image: with 8 objects or more, relative to 1 to 3.
    "crowded_images": 3.0,
    # Share of the sampled positives that the best served quarter of the objects has.
    "best_served_quarter": 0.6,
    # Share of the objects without a positive proposal.
    "objects_without_positives": 0.2,
    # Positives of the most frequent class, relative to the rarest that occurs.
    "class_ratio": 10.0,
    # Share of the sampled positives with an IoU of 0.8 or more.
    "good_positives": 0.1,
    # Mean gain of IoU by regression of positives with an IoU of 0.8 or more.
    "gain_of_good_boxes": 0.0,
    # Proposals with an IoU above 0.6 an image, in the last quarter relative to the first.
    "proposals_improve": 1.5,
    # Box gradient of a positive with an IoU above 0.7, relative to one below 0.6.
    "gradient_of_good_boxes": 0.5,
    # AP90 relative to AP50.
    "tight_boxes": 0.2,
    # AP on images with 1 to 3 objects, less AP on those with 8 or more.
    "ap_of_crowds": 5.0,
    # Mean difference of predicted and true IoU.
    "predicted_iou": 0.1,
}
"""The limits of all rules; what lies beyond one is called out of balance."""


class Verdict(NamedTuple):
    """The number that a rule looks at (NaN if there is none), whether it is beyond its limit, and both in words."""

    value: float
    out_of_balance: bool
    text: str


class Rule(NamedTuple):
    """The rule of one symptom. ``treatments``: keys of ``TREATMENTS``; ``advice``: added where it is found.

    ``of_data``: the rule looks at the data, so that an untrained detector is no objection.
    """

    title: str
    judge: Callable[[Evidence], Verdict]
    treatments: Sequence[str] = ()
    advice: str = ""
    of_data: bool = False


def too_little_training(evidence: Evidence) -> str:
    """Why a detector tells nothing yet, in words; empty if it has been trained, or if nothing says how long."""
    iterations, enough = evidence.iterations, LIMITS["iterations"]
    if iterations is not None and iterations < enough:
        return f"Too little training to judge: {count(iterations, 'iteration')}, and {enough:g} are needed."
    for name, report in evidence.evaluations.items():
        ap50 = report["metrics"].get("bbox", {}).get("AP50")
        if ap50 is not None and ap50 < LIMITS["ap50"]:
            return f"Too little is learned to judge: AP50 on {name} is {ap50:.1f}, and {LIMITS['ap50']:g} is needed."
    return ""


def count(number: float, noun: str) -> str:
    """``1 image``, ``2 images``"""
    return f"{number:.0f} {noun}" if round(number) == 1 else f"{number:.0f} {noun}s"


def above(value: float, limit: str, text: str, shown: str = "{:g}") -> Verdict:
    """A verdict that is "out of balance" above ``LIMITS[limit]``. The format is that of the shown numbers."""
    return Verdict(value, value > LIMITS[limit], f"{text} (limit: {shown.format(LIMITS[limit])}).")


def below(value: float, limit: str, text: str, shown: str = "{:g}") -> Verdict:
    """A verdict that is "out of balance" below ``LIMITS[limit]``. The format is that of the shown numbers."""
    return Verdict(value, value < LIMITS[limit], f"{text} (limit: {shown.format(LIMITS[limit])}).")


def unknown(why: str) -> Verdict:
    """A verdict that judges nothing, and says why."""
    return Verdict(float("nan"), False, why)
