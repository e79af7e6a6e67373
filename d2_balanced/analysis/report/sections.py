"""The sections of the page: which figures, how to read them, and what to do where there are none."""

from __future__ import annotations

from typing import NamedTuple, Sequence

__all__ = ["SECTIONS", "Section"]

_TRAIN = "Train with --imbalance-report (or ANALYSIS.RECORD True, train.record_imbalance.enabled=true)."


class Section(NamedTuple):
    """``needs``: why it may be empty, as a key of ``RunData.missing`` and in words, with what to do."""

    title: str
    figures: Sequence[str]
    reading: str
    key: str
    needs: str


SECTIONS: Sequence[Section] = (
    Section(
        "Proposals and samples by IoU",
        ["proposals_by_iou", "samples_by_iou"],
        "How well proposals overlap their best object. Few above 0.7 means that the box regressor rarely sees a "
        "good box; a tall first bar among the negatives means that most are easy.",
        "recording",
        "Nothing was recorded. " + _TRAIN,
    ),
    Section(
        "The same, as training goes on",
        ["iou_by_time", "positives_by_threshold", "proposal_quality", "sampled", "accuracy"],
        "Dark is early, bright is late. If proposals move to the right, or their number above a threshold grows, a fixed "
        "IoU threshold that was too strict at first is too lax at the end. Accuracy: a classifier that says background to "
        "everything is "
        "right on negatives and wrong on positives.",
        "time",
        "A checkpoint has no history, and one window of iterations shows no change. " + _TRAIN,
    ),
    Section(
        "Positives by image, object and class",
        ["positives_by_objects", "positives_per_object", "by_class"],
        "Images with more objects have more positives, and objects with more proposals get more samples. The "
        "class figure is logarithmic; sampled positives include the appended ground truth.",
        "recording",
        "Nothing was recorded, or there were no objects. " + _TRAIN,
    ),
    Section(
        "Which samples the loss and the gradient come from",
        ["losses_by_iou", "gradients_by_iou"],
        "Share of each IoU interval. Gradients are those with respect to each sample's own outputs (Euclidean "
        "norm), before normalisation and loss weights. Of the last quarter of the recording; classification is on a "
        "logarithmic axis.",
        "recording",
        "Nothing was recorded, or there were no samples. " + _TRAIN,
    ),
    Section(
        "Gradients of the heads",
        ["gradient_norms"],
        "Norms at one parameter of the backbone. Heads that agree have a sum as large as the sum of their norms.",
        "gradient norms",
        "They are measured only if ANALYSIS.GRADIENT_PERIOD (train.record_imbalance.gradient_period) is above 0, "
        "for each measurement takes a backward pass a head.",
    ),
    Section(
        "What adapted in training",
        ["adaptive"],
        "Thresholds, betas and gradient factors (lambda), with the statistics that they follow.",
        "adaptive",
        "Nothing in this run adapts: there is no dynamic threshold, no dynamic beta and no gradient annealing, "
        "or there is no metrics.json.",
    ),
    Section(
        "Box regression",
        ["regression_targets", "regression"],
        "The spread of what the regressor is asked for: where it shrinks, a loss with a fixed beta no longer sees it. "
        "IoU of positives before and after regression, in the last quarter of the recording. Below zero, regression "
        "makes boxes worse; it does so first on the right, where boxes were good.",
        "recording",
        "There were no positives apart from appended ground truth, or nothing was recorded.",
    ),
    Section(
        "Scores",
        ["scores"],
        "Foreground probabilities (1 - background) of positives and negatives, in the last quarter of the recording. "
        "With several branches: how much they differ on the same RoIs.",
        "recording",
        "Nothing was recorded. " + _TRAIN,
    ),
    Section(
        "Predicted IoU",
        ["predicted_iou"],
        "On the dashed line predictions are right on average; below it they promise too much. Of training "
        "samples; of detections: python -m d2_balanced.analysis.iou_scores.",
        "predicted iou",
        "The model has no IoU branch that predicts IoUs (MODEL.BALANCED.IOU_BRANCH).",
    ),
    Section(
        "AP",
        ["ap_by_iou", "ap_by_objects"],
        "A steep fall at high thresholds means loose boxes, or loose annotations. The groups by number of "
        "objects have different images, so a difference is not the detector's alone.",
        "evaluation",
        "There is no evaluation. Give the run a validation set, or evaluate it: train_net.py --config-file "
        "CONFIG --eval-only --resume --output-dir RUN_DIR; then make the report again.",
    ),
)
