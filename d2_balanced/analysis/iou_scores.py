"""Class score or predicted IoU: which ranks boxes better? (IoU-Uniform R-CNN, figures 7 and 8; any two-stage detector)

    python -m d2_balanced.analysis.iou_scores --config-file CONFIG --weights model_final.pth --output iou_scores
    python -m d2_balanced.analysis.iou_scores --config-file CONFIG --weights runs/seed*/model_final.pth \\
        --val-json val.json --val-images val --output iou_scores

The command ranks the same candidates by class score, by predicted IoU and by their product, and reports the recall
after NMS for each. It also compares predicted with true IoU, with EFO and without, for refined boxes whose true IoU exceeds
``--min-iou``. Several checkpoints (seeds) also give mean and standard deviation. Files: iou_scores.json,
recall_by_nms_key.png and, with an IoU predictor, predicted_iou.png.
"""

from __future__ import annotations

import json
import os

import numpy as np
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from ..arguments.iou_scores import argument_parser
from ..evaluation.write_results import without_nan, write_text
from ..utils.command import command
from .checkpoints import load_each, open_for_evaluation, parse
from .nms_recall import MATCHING_IOUS
from .panels import curve_figure, density_figure
from .pictures import choose_evenly
from .ranking import mean_and_sd, measure

__all__ = ["main"]

_RECALLS = {"recall_after_nms": "all boxes that NMS keeps", "recall_of_detections": "the detector's number of boxes"}
_MEASURES = ("pearson", "spearman", "mean_error", "mean_absolute_error")


@command("python -m d2_balanced.analysis.iou_scores")
def main(argv=None):
    """The commands at the top of this module; prints the numbers and returns the summaries, one a checkpoint."""
    args = parse(argument_parser(), argv)
    return _report(args, _measure_checkpoints(args))


def _measure_checkpoints(args):
    experiment = open_for_evaluation(args)
    records = DatasetCatalog.get(experiment.test_datasets[0])
    records = choose_evenly(records, args.images if args.images is not None else max(len(records), 1))
    model, mapper = experiment.build_model(), experiment.build_mapper(False)
    return [measure(model, mapper, records) for _ in load_each(model, args.weights)]


def _report(args, scores):
    """Write the files, print the tables; the summaries."""
    summaries = [each.summary(args.min_iou) for each in scores]
    os.makedirs(args.output, exist_ok=True)
    runs = [{"weights": path, **summary} for path, summary in zip(args.weights, summaries)]
    averaged = [{name: each[name] for name in (*_RECALLS, "predicted_iou")} for each in summaries]
    content = {"min_iou": args.min_iou, "checkpoints": runs, "mean_and_sd": mean_and_sd(averaged)}
    path = os.path.join(args.output, "iou_scores.json")
    write_text(path, json.dumps(without_nan(content), indent=1) + "\n")
    overall = content["mean_and_sd"]
    for name, title in _RECALLS.items():
        print(f"recall by matching IoU, {title}\n\n{_recall_table(overall[name])}\n")
    if overall["predicted_iou"]:
        print(f"predicted IoU of boxes with a true IoU above {args.min_iou:g}\n\n{_iou_table(overall)}\n")
    else:
        print("No IoU predictor: candidates are ranked by class score only, and there is no figure 8.\n")
    print("\n".join([path, *_draw(args, scores, overall)]))
    return summaries


def _recall_table(by_key):
    headers = ["NMS by", *(f"{iou:.2f}" for iou in MATCHING_IOUS), "mean", "boxes an image"]
    values = {key: [*each["recall"], each["mean"], each["boxes_per_image"]] for key, each in by_key.items()}
    rows = [[key, *map(_shown, each)] for key, each in values.items()]
    return tabulate(rows, headers, disable_numparse=True)


def _iou_table(overall):
    headers = ["", "boxes", *(name.replace("_", " ") for name in _MEASURES)]
    rows = [
        [name, f"{each['boxes']['mean']:.0f}", *(_shown(each[measure]) for measure in _MEASURES)]
        for name, each in overall["predicted_iou"].items()
    ]
    return tabulate(rows, headers, disable_numparse=True)


def _shown(value):
    if value["mean"] is None:
        return "-"
    spread = "" if value["sd"] is None else f" +- {value['sd']:.3f}"
    return f"{value['mean']:.3f}{spread}"


def _draw(args, scores, overall):
    """Write both figures; paths."""
    panels = []
    for name, title in _RECALLS.items():
        curves = {key: (np.array(MATCHING_IOUS), _means(each["recall"])) for key, each in overall[name].items()}
        panels.append((title, "matching IoU", "recall", curves, {"ylim": (0, 1)}))
    figures = {"recall_by_nms_key": curve_figure("Recall after NMS, by what NMS ranks by", panels)}
    true = np.concatenate([each.true for each in scores])
    points = []
    for name, each in overall["predicted_iou"].items():
        predicted = np.concatenate([each.ious[name] for each in scores])
        points.append((f"{name}, r = {_shown(each['pearson'])}", true, predicted))
    if points:
        labels, limits = ("true IoU of the refined box", "predicted IoU"), ((args.min_iou, 1), (0, 1))
        figures["predicted_iou"] = density_figure("Predicted and true IoU", points, *labels, *limits)
    paths = [os.path.join(args.output, f"{name}.png") for name in figures]
    for figure, path in zip(figures.values(), paths):
        figure.savefig(path, dpi=110)
    return paths


def _means(values):
    return np.array([np.nan if value["mean"] is None else value["mean"] for value in values])


if __name__ == "__main__":
    main()
