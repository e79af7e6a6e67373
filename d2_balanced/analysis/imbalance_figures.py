"""Figures of what a run recorded (``recording/``): one PNG each, with a curve for every run. ``FIGURES`` lists them.

Every function takes ``{run: Recording}`` and returns the figure, or ``None`` where there is nothing to show.
"""

from __future__ import annotations

import os

import numpy as np

from ..recording.counts import MAX_OBJECTS
from ..utils.fonts import fit_figure
from .curves import curves_of, histograms, means_by_bin, over_time, shares_by_bin
from .panels import curve_figure, per_image, share
from .quality_figures import draw_positives_by_threshold, draw_proposal_quality, draw_regression_targets
from .sample_figures import draw_gradients_by_iou, draw_iou_by_time, draw_positives_per_object, draw_predicted_iou

__all__ = ["FIGURES", "save_plots"]

_RATIO_MINIMUM = 1e-12


def save_plots(recordings, output_dir):
    """Draw every figure for which something was recorded; returns the paths of the PNGs.

    Args:
        recordings: ``{name of the run: Recording}``.
        output_dir: folder for the PNGs; it is made.
    """
    os.makedirs(output_dir, exist_ok=True)
    paths = []
    for name, draw in FIGURES.items():
        figure = draw(recordings)
        if figure is not None:
            paths.append(os.path.join(output_dir, f"{name}.png"))
            fit_figure(figure).savefig(paths[-1], dpi=110)
    return paths


def _sampled(recordings):
    def number(kind):
        return over_time(recordings, lambda f: per_image(f, kind))

    return curve_figure(
        "Samples that the box heads train on",
        [
            ("positives", "iteration", "positives an image", number("positives")),
            ("negatives", "iteration", "negatives an image", number("negatives")),
        ],
    )


def _accuracy(recordings):
    def accuracy(kind):
        return over_time(recordings, lambda f: share(f[f"{kind}_correct"], f[kind])[0])

    return curve_figure(
        "Classification accuracy on the samples, in training",
        [
            ("positives", "iteration", "share classified as their object's class", accuracy("positives")),
            ("negatives", "iteration", "share classified as background", accuracy("negatives")),
        ],
    )


def _proposals(recordings):
    curves = histograms(recordings, "proposal_ious")
    positive = {label: (x[x > 0.5], y[x > 0.5]) for label, (x, y) in curves.items()}
    x_label = "IoU with the best object"
    return curve_figure(
        "Proposals by IoU (appended ground truth left out)",
        [
            ("all, logarithmic", x_label, "proposals an image", curves, {"yscale": "log"}),
            ("IoU above 0.5", x_label, "proposals an image", positive),
        ],
        steps=True,
    )


def _samples(recordings):
    x_label = "IoU with the best object"
    positives, negatives = (histograms(recordings, f"{kind}_ious") for kind in ("positive", "negative"))
    return curve_figure(
        "Training samples by IoU (appended ground truth left out)",
        [
            ("positives", x_label, "samples an image", positives, {"xlim": (0.4, 1)}),
            ("negatives", x_label, "samples an image", negatives, {"yscale": "log"}),
        ],
        steps=True,
    )


def _refinement(recordings):
    after = means_by_bin(recordings, "positive_ious", "positive_iou_sum", "refined_iou_sum")
    gain = {label: (x, y - x) for label, (x, y) in after.items()}
    x_label, y_label = "IoU before regression", "positives an image"
    histogram = histograms(recordings, "refined_ious")
    return curve_figure(
        "Box regression of the sampled positives",
        [
            ("localisation", x_label, "mean IoU after regression", after, {"diagonal": (0.4, 1)}),
            ("improvement", x_label, "mean IoU after - before", gain, {"zero": True}),
            ("histogram", "IoU after regression", y_label, histogram),
        ],
    )


def _losses(recordings):
    classes, boxes = shares_by_bin(recordings, "cls_loss"), shares_by_bin(recordings, "box_loss", above=0.4)
    x_label = "IoU of the sample"
    return curve_figure(
        "Which samples the loss comes from (appended ground truth left out)",
        [
            ("classification loss", x_label, "share of the loss", classes, {"yscale": "log"}),
            ("box regression loss", x_label, "share of the loss", boxes),
        ],
        steps=True,
    )


def _by_objects(recordings):
    def moments(f):
        images = f["images_by_objects"]
        number = np.flatnonzero(images)
        mean = f["positives_by_objects"][number] / images[number]
        spread = np.sqrt(np.maximum(f["squared_positives_by_objects"][number] / images[number] - mean**2, 0))
        return number, mean, spread

    found = curves_of(recordings, moments)
    means = {label: (number, mean) for label, (number, mean, _) in found.items()}
    spreads = {label: (number, spread) for label, (number, _, spread) in found.items()}
    x_label = f"objects in the image ({MAX_OBJECTS}: or more)"
    return curve_figure(
        "Positive proposals by number of objects (appended ground truth left out)",
        [
            ("mean", x_label, "positive proposals an image", means, {"whole": True}),
            ("standard deviation", x_label, "positive proposals an image", spreads, {"whole": True}),
        ],
    )


def _scores(recordings):
    positives, negatives = (shares_by_bin(recordings, f"{kind}_scores") for kind in ("positive", "negative"))
    panels = [
        ("positives", "foreground probability", "share of the positives", positives),
        ("negatives", "foreground probability", "share of the negatives", negatives, {"yscale": "log"}),
    ]
    differences = shares_by_bin(recordings, "score_differences")
    if differences:
        x_label = "absolute difference to the main branch, same RoIs"
        panels.append(("between branches", x_label, "share of the RoIs", differences, {"yscale": "log"}))
    return curve_figure("Scores of the samples, in training", panels, steps=True)


def _gradients(recordings):
    curves, ratios = {}, {}
    for run, recording in recordings.items():
        prefix = f"{run}, " if len(recordings) > 1 else ""
        for name in sorted({name for _, norms in recording.gradients for name in norms}):
            points = [(iteration, norms[name]) for iteration, norms in recording.gradients if name in norms]
            curves[prefix + name] = tuple(np.array(part, dtype=float) for part in zip(*points))
        ratio = [(i, n["sum"] / max(_sum_of_norms(n), _RATIO_MINIMUM)) for i, n in recording.gradients]
        if ratio:
            ratios[run] = tuple(np.array(part, dtype=float) for part in zip(*ratio))
    return curve_figure(
        "Gradients of the heads' losses at one parameter of the backbone",
        [
            ("norms; sum: of the heads' gradients added up", "iteration", "Frobenius norm", curves),
            ("agreement of the heads", "iteration", "norm of the sum / sum of the norms", ratios, {"ylim": (0, 1.05)}),
        ],
    )


def _sum_of_norms(norms):
    return sum(value for name, value in norms.items() if name not in ("sum", "rpn"))


FIGURES = {
    "sampled": _sampled,
    "accuracy": _accuracy,
    "proposals_by_iou": _proposals,
    "samples_by_iou": _samples,
    "iou_by_time": draw_iou_by_time,
    "positives_by_threshold": draw_positives_by_threshold,
    "proposal_quality": draw_proposal_quality,
    "regression_targets": draw_regression_targets,
    "regression": _refinement,
    "losses_by_iou": _losses,
    "gradients_by_iou": draw_gradients_by_iou,
    "positives_by_objects": _by_objects,
    "positives_per_object": draw_positives_per_object,
    "scores": _scores,
    "predicted_iou": draw_predicted_iou,
    "gradient_norms": _gradients,
}
"""Names of the PNGs, and who draws them."""
