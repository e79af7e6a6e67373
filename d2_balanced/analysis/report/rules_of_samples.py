"""Rules on what is sampled: negatives, positives over time, by image, by object and by class."""

from __future__ import annotations

import numpy as np

from .evidence import Evidence, between, mean_positives, ratio
from .verdicts import LIMITS, Rule, Verdict, above, below, count, unknown

__all__ = ["SAMPLE_RULES"]

_NEEDS_TIME = "This needs a recording in training with two windows or more."


def _easy_negatives(e: Evidence) -> Verdict:
    negatives = e.whole["negative_ious"]
    if negatives.sum() < LIMITS["samples"]:
        return unknown(f"Too few samples: {count(negatives.sum(), 'negative')}.")
    share = ratio(between(negatives, 0, 0.05), negatives.sum())
    text = f"Of the sampled negatives, {share:.0%} overlap no object by an IoU of 0.05"
    return above(share, "easy_negatives", text, "{:.0%}")


def _few_early_positives(e: Evidence) -> Verdict:
    if e.early is None:
        return unknown(_NEEDS_TIME)
    early, late = (_positives_an_image(fields) for fields in (e.early, e.late))
    if late == 0:
        return unknown("There were no positives at the end of the recording.")
    accuracy = ratio(e.early["positives_correct"][0], e.early["positives"][0])
    text = (
        f"In the first quarter the class of {accuracy:.0%} of the sampled positives was right. "
        if e.early["positives"][0]
        else ""
    )
    text += (
        f"{early:.1f} positives an image were sampled in the first quarter and {late:.1f} in the last, appended ground "
        f"truth left out: {early / late:.2f} times as many"
    )
    return below(early / late, "early_positives", text)


def _positives_an_image(fields) -> float:
    return ratio(fields["positives"][0] - fields["appended_gt"][0], fields["images"][0])


def _crowded_images(e: Evidence) -> Verdict:
    (few, few_images), (many, many_images) = (mean_positives(e.whole, *span) for span in ((1, 3), (8, 1000)))
    if min(few_images, many_images) < LIMITS["images"]:
        return unknown(f"Too few: {count(few_images, 'image')} with 1 to 3 objects, {count(many_images, 'image')} with 8 or more.")
    if few == 0:
        return unknown("Images with 1 to 3 objects have no positive proposals.")
    text = (
        f"Images with 1 to 3 objects have {few:.1f} positive proposals, those with 8 or more have {many:.1f}: "
        f"{many / few:.1f} times as many"
    )
    return above(many / few, "crowded_images", text)


def _uneven_objects(e: Evidence) -> Verdict:
    objects = e.whole["objects_by_samples"]
    positives = np.arange(len(objects))
    total = (objects * positives).sum()
    if objects.sum() < LIMITS["samples"] or total == 0:
        return unknown(f"Too few: {count(objects.sum(), 'object')}, {count(total, 'sampled positive')}.")
    share = ratio(_of_best_served(objects, positives, objects.sum() / 4), total)
    text = f"The quarter of the objects with the most sampled positives has {share:.0%} of them"
    return above(share, "best_served_quarter", text, "{:.0%}")


def _of_best_served(objects, positives, number) -> float:
    """Sum of the positives over the ``number`` objects that have the most."""
    found = 0.0
    for available, each in zip(objects[::-1], positives[::-1]):
        taken = min(available, number)
        found, number = found + taken * each, number - taken
    return found


def _objects_without_positives(e: Evidence) -> Verdict:
    objects = e.whole["objects_by_positives"]
    if objects.sum() < LIMITS["samples"]:
        return unknown(f"Too few: {count(objects.sum(), 'object')}.")
    share = ratio(objects[0], objects.sum())
    text = f"{share:.0%} of the objects have no positive proposal, only their own appended box"
    return above(share, "objects_without_positives", text, "{:.0%}")


def _class_ratio(e: Evidence) -> Verdict:
    objects, positives = e.whole["class_objects"], e.whole["class_positives"]
    occurring = np.flatnonzero((objects > 0) & (positives > 0))
    if len(objects) < 2:
        return unknown("There is one class only.")
    if len(occurring) < 2 or positives.sum() < LIMITS["samples"]:
        return unknown("Fewer than two classes have positives, or too few of them.")
    most, least = (occurring[function(positives[occurring])] for function in (np.argmax, np.argmin))
    value = ratio(positives[most], positives[least])
    absent = len(objects) - int((objects > 0).sum())
    text = f"{_name(e, most)} has {value:.1f} times as many sampled positives as {_name(e, least)}"
    return above(value, "class_ratio", f"{count(absent, 'class').replace('classs', 'classes')} did not occur. {text}" if absent else text)


def _name(e: Evidence, index: int) -> str:
    return f'"{e.class_names[index]}"' if index < len(e.class_names) else f"class {index}"


SAMPLE_RULES = (
    Rule("Easy negatives", _easy_negatives, ["iou_balanced_negatives"],
         "This suggests drawing as many negatives from each IoU interval, so that parts of objects are trained on."),
    Rule("Few positives early in training", _few_early_positives, ["gradient_annealing", "dynamic_labels"],
         "This suggests larger gradients of the box heads while positives are rare, or a lower first threshold."),
    Rule("Images with many and with few objects", _crowded_images, ["parallel_branches"],
         "This suggests heads side by side, trained on different shares of positives."),
    Rule("Some objects take most samples", _uneven_objects, ["instance_balanced_positives"],
         "This suggests drawing about as many positives from each object."),
    Rule("Objects without positives", _objects_without_positives, ["dynamic_labels"],
         "This suggests a look at the RPN first (anchor sizes, MODEL.RPN.POST_NMS_TOPK_TRAIN); a threshold that starts "
         "lower gives such objects positives as well."),
    Rule("Rare classes", _class_ratio, ["repeat_factor"],
         "None of the five papers' methods treats this. This suggests showing images with rare classes more often.",
         of_data=True),
)  # fmt: skip
