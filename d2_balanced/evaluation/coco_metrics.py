"""COCO's metrics from precision and recall arrays: AP at each IoU threshold, by size, by class; AR by limit."""

from typing import NamedTuple

import numpy as np

from ..data.class_names import distinct_names
from .coco_backend import match_and_accumulate, resolve_backend

__all__ = ["AREAS", "IOU_PERCENTS", "CocoMetrics", "detection_limits", "evaluate_coco", "metric_names", "percent"]

IOU_PERCENTS = tuple(range(50, 100, 5))  # AP50, AP55, ... AP95
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # suffix of the metric -> index of the area range


def percent(values):
    """Mean of the defined entries (> -1) times 100; NaN where there is none."""
    defined = values[values > -1]
    return float(np.mean(defined) * 100) if defined.size else float("nan")


def detection_limits(max_dets):
    """COCO's limits 1, 10 and 100 below ``max_dets``, and ``max_dets`` itself, ascending."""
    return [limit for limit in (1, 10, 100) if limit < max_dets] + [max_dets]


class CocoMetrics(NamedTuple):
    """Precision (T, R, K, A, M) and recall (T, K, A, M) as in :func:`match_and_accumulate`; values are percentages."""

    precision: np.ndarray
    recall: np.ndarray
    max_dets: list

    def ap(self, iou_percent=None, area="", class_index=None):
        """AP at one IoU threshold (percent) or over all, for an area range and a class or all; NaN if undefined."""
        values = self.precision[..., AREAS[area], -1]
        if iou_percent is not None:
            values = values[IOU_PERCENTS.index(iou_percent)][None]
        return percent(values if class_index is None else values[..., class_index])

    def ar(self, max_dets=None, area="", class_index=None):
        """AR over the IoU thresholds with at most ``max_dets`` (one of ``self.max_dets``; None: the last)."""
        limit = -1 if max_dets is None else self.max_dets.index(max_dets)
        values = self.recall[..., AREAS[area], limit]
        return percent(values if class_index is None else values[..., class_index])

    def summary(self):
        """All metrics over classes: ``{"AP", "AP50" .. "AP95", "APs/m/l", "AR@1" .., "ARs/m/l@<max>"}``."""
        metrics = {"AP": self.ap()}
        metrics.update({f"AP{p}": self.ap(p) for p in IOU_PERCENTS})
        metrics.update({f"AP{area}": self.ap(area=area) for area in "sml"})
        metrics.update({f"AR@{limit}": self.ar(limit) for limit in self.max_dets})
        metrics.update({f"AR{area}@{self.max_dets[-1]}": self.ar(area=area) for area in "sml"})
        return metrics

    def per_class(self, ground_truth):
        """One dict per class: name, id, number of objects (crowds left out), AP, AP50 .. AP95, AR at the last limit.

        Of equal names each has its id behind it (``distinct_names``), so that the names are keys.
        """
        num_objects = [0] * len(ground_truth.class_names)
        for annotation in ground_truth.annotations:
            num_objects[annotation["category_id"]] += not annotation["iscrowd"]
        rows = []
        for k, name in enumerate(distinct_names(ground_truth.class_names, ground_truth.category_ids)):
            row = {"class": name, "category_id": ground_truth.category_ids[k], "objects": num_objects[k]}
            row["AP"] = self.ap(class_index=k)
            row.update({f"AP{p}": self.ap(p, class_index=k) for p in IOU_PERCENTS})
            row[f"AR@{self.max_dets[-1]}"] = self.ar(class_index=k)
            rows.append(row)
        return rows


def metric_names(max_dets):
    """The keys of ``CocoMetrics.summary``, before there is anything to evaluate."""
    limits = detection_limits(max_dets)
    recall = np.full((len(IOU_PERCENTS), 1, len(AREAS), len(limits)), -1.0)
    return list(CocoMetrics(recall[:, None], recall, limits).summary())


def evaluate_coco(
    ground_truth, detections, task="bbox", *, max_dets=100, backend="auto", image_indices=None, use_categories=True
):
    """COCO's metrics of detections with internal ids (``results.internal_detections``), at most ``max_dets`` an image.

    No detection gives AP 0 wherever there is ground truth, and NaN elsewhere. The rest as in
    :func:`match_and_accumulate`.
    """
    limits = detection_limits(max_dets)
    backend = resolve_backend(backend)
    arrays = match_and_accumulate(ground_truth, detections, task, limits, backend, image_indices, use_categories)
    return CocoMetrics(*arrays, limits)
