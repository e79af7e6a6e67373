"""Rules on how boxes are learned and how well they fit."""

from __future__ import annotations

import numpy as np

from .evidence import Evidence, between, ratio
from .verdicts import LIMITS, Rule, Verdict, above, below, count, unknown

__all__ = ["BOX_RULES"]


def _good_positives(e: Evidence) -> Verdict:
    positives = e.whole["positive_ious"]
    if positives.sum() < LIMITS["samples"]:
        return unknown(f"Too few samples: {count(positives.sum(), 'positive')}.")
    share = ratio(between(positives, 0.8), positives.sum())
    text = f"{share:.0%} of the sampled positives have an IoU of 0.8 or more"
    return below(share, "good_positives", text, "{:.0%}")


def _gain_of_good_boxes(e: Evidence) -> Verdict:
    number = between(e.latest["positive_ious"], 0.8)
    if number < LIMITS["samples"]:
        return unknown(f"Too few: {count(number, 'positive')} with an IoU of 0.8 or more.")
    before, after = (between(e.latest[field], 0.8) / number for field in ("positive_iou_sum", "refined_iou_sum"))
    text = f"At the end, regression takes positives with an IoU of 0.8 or more from {before:.3f} to {after:.3f}"
    return below(after - before, "gain_of_good_boxes", text)


def _proposals_improve(e: Evidence) -> Verdict:
    if e.early is None:
        return unknown("This needs a recording in training with two windows or more.")
    early, late = (ratio(between(f["proposal_ious"], 0.6), f["images"][0]) for f in (e.early, e.late))
    if early == 0:
        return unknown("In the first quarter no proposal had an IoU above 0.6.")
    text = (
        f"{early:.1f} proposals an image had an IoU above 0.6 in the first quarter and {late:.1f} in the last: "
        f"{late / early:.1f} times as many"
    )
    return above(late / early, "proposals_improve", text)


def _gradient_of_good_boxes(e: Evidence) -> Verdict:
    gradient, positives = e.latest["box_gradient"], e.latest["positive_ious"]
    if gradient.sum() == 0:
        return unknown("No box gradient was recorded: there were no positives, or an IoU branch regresses the boxes.")
    good, poor = between(positives, 0.7), between(positives, 0, 0.6)
    if min(good, poor) < LIMITS["samples"]:
        return unknown(f"Too few: {count(poor, 'positive')} with an IoU below 0.6, {count(good, 'positive')} with one above 0.7.")
    value = ratio(between(gradient, 0.7) / good, between(gradient, 0, 0.6) / poor)
    text = f"At the end, a positive with an IoU above 0.7 has {value:.2f} times the box gradient of one below 0.6"
    return below(value, "gradient_of_good_boxes", text)


def _tight_boxes(e: Evidence) -> Verdict:
    for name, report in e.evaluations.items():
        low, high = (report["metrics"]["bbox"].get(metric) for metric in ("AP50", "AP90"))
        if low and high is not None:
            text = f"On {name} AP50 is {low:.1f} and AP90 is {high:.1f}: {high / low:.0%} of it"
            return below(high / low, "tight_boxes", text, "{:.0%}")
    return unknown("This needs an evaluation with an AP50 above 0.")


def _ap_of_crowds(e: Evidence) -> Verdict:
    for name, values in e.by_objects.items():
        few, many = values.get("AP[1-3]"), values.get("AP[8+]")
        images = min(values.get("images[1-3]", 0), values.get("images[8+]", 0))
        if None not in (few, many) and images >= LIMITS["images"] and not np.isnan([few, many]).any():
            text = (
                f"On {name} AP is {few:.1f} on images with 1 to 3 objects and {many:.1f} on those with 8 or more, "
                f"{few - many:.1f} apart"
            )
            return above(few - many, "ap_of_crowds", text)
    return unknown(f"This needs an evaluation with {LIMITS['images']:g} images of 1 to 3 objects and of 8 or more.")


def _predicted_iou(e: Evidence) -> Verdict:
    number = e.latest["predicted_ious"].sum()
    if number == 0:
        return unknown("The model predicts no IoUs.")
    gap = np.abs(e.latest["predicted_iou_sum"] - e.latest["predicted_iou_true_sum"]).sum() / number
    return above(gap, "predicted_iou", f"At the end, predicted and true IoU of samples differ by {gap:.2f} on average")


BOX_RULES = (
    Rule("Few positives that fit well", _good_positives, ["generated_boxes", "loops"],
         "This suggests training the regressor on boxes generated at every IoU, or on refined ones (loop, cascade)."),
    Rule("Regression makes good boxes worse", _gain_of_good_boxes, ["generated_boxes", "dynamic_smooth_l1"],
         "This suggests more good boxes for the regressor, or a loss that small errors count in."),
    Rule("Proposals become better in training", _proposals_improve, ["dynamic_labels"],
         "This suggests a threshold that follows them. In a short training from scratch they improve in any case."),
    Rule("Good boxes hardly train", _gradient_of_good_boxes, ["dynamic_smooth_l1", "balanced_l1"],
         "This suggests a box loss with larger gradients for small errors."),
    Rule("Loose boxes", _tight_boxes, ["dynamic_labels", "dynamic_smooth_l1", "generated_boxes"],
         "This suggests what treats localisation. Loose annotations look the same: see the pictures."),
    Rule("AP falls with the number of objects", _ap_of_crowds, ["parallel_branches"],
         "Small or hidden objects may be the reason, too. This suggests heads for different shares of positives."),
    Rule("Predicted IoUs are off", _predicted_iou, [],
         "This suggests less weight in the score (MODEL.BALANCED.IOU_BRANCH.IOU_POWER), or longer training."),
)  # fmt: skip
