"""The report's figures: those of a recording (``imbalance_figures.py``), and those of metrics and evaluations."""

from __future__ import annotations

import os
from typing import Dict

import numpy as np

from ...engine.history import plot_adaptive
from ...evaluation.coco_metrics import IOU_PERCENTS
from ...recording.file import merge
from ...utils.fonts import fit_figure, names_to_draw
from ..curves import parts_of
from ..imbalance_figures import FIGURES
from ..panels import curve_figure, plain_log_labels

__all__ = ["save_figures"]

_NEED_TIME = ("sampled", "accuracy", "iou_by_time", "positives_by_threshold", "proposal_quality")
_LATEST = ("regression", "losses_by_iou", "gradients_by_iou", "scores", "predicted_iou")  # at first heads are random
_SHOWN_CLASSES = 20


def save_figures(data, folder: str) -> Dict[str, str]:
    """Draw what ``gather.RunData`` has into ``folder``; returns ``{name of the figure: path of its PNG}``."""
    paths = _of_recording(data, folder)
    own = {"ap_by_iou": _ap_by_iou(data), "ap_by_objects": _ap_by_objects(data), "by_class": _by_class(data)}
    for name, figure in own.items():
        if figure is not None:
            paths[name] = os.path.join(folder, f"{name}.png")
            fit_figure(figure).savefig(paths[name], dpi=110)
    adaptive = os.path.join(folder, "adaptive.png")
    if os.path.exists(adaptive):
        os.remove(adaptive)  # of an earlier report
    plot_adaptive(data.rows, adaptive)
    return {**paths, **({"adaptive": adaptive} if os.path.exists(adaptive) else {})}


def _of_recording(data, folder):
    """Figures of the recording. Those in ``_LATEST`` show its last quarter."""
    latest = parts_of(data.recording)[-1]
    paths = {}
    for name, draw in FIGURES.items():
        figure = draw({data.name: latest if name in _LATEST else data.recording})
        if figure is not None and not (name in _NEED_TIME and len(data.recording.windows) < 2):
            paths[name] = os.path.join(folder, f"{name}.png")
            fit_figure(figure).savefig(paths[name], dpi=110)
    return paths


def _ap_by_iou(data):
    curves, by_class = {}, {}
    for name, report in data.evaluations.items():
        curves[name] = _over_ious(report["metrics"]["bbox"])
        rows = report.get("per_class", {}).get("bbox", ())
        prefix = f"{name}, " if len(data.evaluations) > 1 else ""
        names = names_to_draw([row["class"] for row in rows[:10]], [f"id {row['category_id']}" for row in rows[:10]])
        by_class.update({prefix + name: _over_ious(row) for name, row in zip(names, rows)})
    panels = [("all classes", "IoU threshold", "AP", curves, {"ylim": (0, 100)})]
    if len(by_class) > 1:
        panels.append(("by class (the first ten)", "IoU threshold", "AP", by_class, {"ylim": (0, 100)}))
    return curve_figure("AP of boxes by IoU threshold", panels)


def _over_ious(values):
    ap = [values.get(f"AP{percent}") for percent in IOU_PERCENTS]
    return np.array(IOU_PERCENTS) / 100, np.array([np.nan if value is None else value for value in ap])


def _ap_by_objects(data):
    groups = [(name, values) for name, values in data.by_objects.items() if values]
    if not groups:
        return None
    name, values = groups[0]
    spans = [key[len("images[") : -1] for key in values if key.startswith("images[")]
    labels = [f"{span}\n({values[f'images[{span}]']} images)" for span in spans]
    bars = {metric: [values[f"{metric}[{span}]"] for span in spans] for metric in ("AP", "AP50", "AP75")}
    bars = {metric: np.array(found, dtype=float) for metric, found in bars.items()}  # None becomes NaN
    return _bar_figure(f"AP of boxes by number of objects in the image, {name}", labels, bars, "objects", "AP")


def _by_class(data):
    merged = merge(data.recording.windows)
    fields = merged[min(merged)]
    objects, positives, images = fields["class_objects"], fields["class_positives"], fields["images"][0]
    if not objects.sum() or len(objects) < 2:
        return None
    order = np.argsort(-objects, kind="stable")
    if len(order) > _SHOWN_CLASSES:
        order = np.concatenate([order[: _SHOWN_CLASSES // 2], order[-(_SHOWN_CLASSES // 2) :]])
    known = dict(enumerate(names_to_draw(data.class_names, [f"class {k}" for k in range(len(data.class_names))])))
    names = [known.get(k, f"class {k}") for k in order.tolist()]
    bars = {"objects": objects[order] / images, "sampled positives": positives[order] / images}
    title = "Objects and sampled positives by class, an image"
    if len(objects) > len(order):
        title += f" (the {_SHOWN_CLASSES // 2} most frequent and the {_SHOWN_CLASSES // 2} rarest of {len(objects)})"
    return _bar_figure(title, names, bars, "", "number an image", log=True)


def _bar_figure(title, labels, bars, x_label, y_label, log=False):
    """Groups of bars. ``bars``: ``{label: one value a group}``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.5, 0.55 * len(labels) + 2), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(bars)
    for number, (label, values) in enumerate(bars.items()):
        axes.bar(np.arange(len(labels)) + (number - (len(bars) - 1) / 2) * width, values, width, label=label)
    axes.set_xticks(np.arange(len(labels)), labels, rotation=60 if len(labels) > 8 else 0)
    _limit(axes, np.concatenate(list(bars.values())), log)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small", loc="upper right", ncols=len(bars))
    return figure


def _limit(axes, values, log):
    """Leave room for the legend above the bars; a logarithmic axis if ``log`` is asked for and the values allow it."""
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    if log:
        axes.set_yscale("log")
        plain_log_labels(axes)
        axes.set_ylim(values.min() / 2, values.max() * 4)
    else:
        axes.set_ylim(0, values.max() * 1.25)
