"""CrowdHuman's metrics: AP50, MR^-2 (log-average miss rate), recall and Jaccard index, of full-body boxes.

The rules of the data set's own evaluation, which the issue's golden numbers fix: boxes are clipped to the image,
a detection takes the unmatched person with the highest IoU above 0.5, one that lies in an ignore region does not count.
"""

import warnings
from typing import NamedTuple

import numpy as np

from ..utils.errors import DataError
from .jaccard_index import jaccard_index

__all__ = ["FPPI_REFS", "CrowdHumanMetrics", "ImageOverlaps", "evaluate_crowdhuman"]

FPPI_REFS = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)  # false positives per image
_MIN_OVERLAP = 0.5
_EPSILON = 1e-6  # in the denominators of IoU and IoA, as in the original


class ImageOverlaps(NamedTuple):
    """Overlaps in one image: N detections by descending score (ties in their old order), P people (not ignored)."""

    scores: np.ndarray  # (N,)
    iou: np.ndarray  # (N, P)
    det_in_ignore: np.ndarray  # (N,) bool: more than half of the detection is in one ignore region
    person_in_ignore: np.ndarray  # (P,) bool


def evaluate_crowdhuman(images, detections, *, miss_rate_floor=0.0):
    """CrowdHuman's metrics from plain arrays, in float64.

    Args:
        images: list of ``{"id", "width", "height", "boxes": (G, 4) xywh in pixels, "ignore": (G,) 0 or 1}``. An image
            without boxes is fine.
        detections: ``{image id: (boxes (N, 4) xywh, scores (N,))}``; an image that is not there has no detections.
        miss_rate_floor: least miss rate in the logarithm of MR^-2. At 0, as in the original, a single reference
            point without misses makes MR^-2 0; 1e-10 is the usual floor.

    Returns:
        dict: fractions ``AP`` (at IoU 0.5, trapezoids from the first detection on: a perfect result scores
        1 - 1/detections), ``MR`` (1.0 without detections), ``recall``, ``JI`` (best over the score thresholds),
        ``JI_curve``, ``miss_rate_at_refs`` (at FPPI_REFS), and the counts ``num_gt``, ``num_images``, ``num_scored``,
        ``max_fppi``, ``tp_fp_ignored_per_image``. Without any person MR and recall are NaN, with a warning.

    Raises:
        ValueError: detections for an image id that is not in ``images``, an id that occurs twice, no images.
    """
    ids = [image["id"] for image in images]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"evaluate_crowdhuman: images must have distinct ids and not be empty; got {len(ids)} images.")
    unknown = [image_id for image_id in detections if image_id not in set(ids)]
    if unknown:
        raise ValueError(f"evaluate_crowdhuman: detections for image ids that have no ground truth: {unknown[:5]}.")
    overlaps = [_overlaps(image, *detections.get(image["id"], ((), ()))) for image in images]
    matches = [_match(image) for image in overlaps]
    scores = np.concatenate([image.scores for image in overlaps])
    outcome = np.concatenate(matches)
    order = np.argsort(-scores[outcome >= 0], kind="stable")
    is_true = outcome[outcome >= 0][order]
    num_gt = sum(image.iou.shape[1] for image in overlaps)
    metrics = _curve_metrics(is_true, num_gt, len(images), miss_rate_floor)
    curve = jaccard_index(overlaps)
    defined = [point["JI"] for point in curve if not np.isnan(point["JI"])]
    metrics.update(JI=max(defined, default=float("nan")), JI_curve=curve, num_scored=len(is_true))
    metrics["tp_fp_ignored_per_image"] = {
        image_id: [int((match == value).sum()) for value in (1, 0, -1)] for image_id, match in zip(ids, matches)
    }
    return metrics


def _overlaps(image, boxes, scores):
    width, height = image["width"], image["height"]
    gt_boxes = _corners(image["boxes"], width, height)
    is_person = np.asarray(image["ignore"]).reshape(-1) == 0
    scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    order = np.argsort(-scores, kind="stable")
    det_boxes = _corners(boxes, width, height)
    if len(det_boxes) != len(scores):
        raise ValueError(f"Image {image['id']!r} has {len(det_boxes)} detected boxes but {len(scores)} scores.")
    det_boxes = det_boxes[order]
    people, ignored = gt_boxes[is_person], gt_boxes[~is_person]
    return ImageOverlaps(
        scores[order],
        _overlap(det_boxes, people),
        (_overlap(det_boxes, ignored, by_own_area=True) > _MIN_OVERLAP).any(axis=1),
        (_overlap(people, ignored, by_own_area=True) > _MIN_OVERLAP).any(axis=1),
    )


def _corners(boxes, width, height):
    """xywh -> x1y1x2y2, clipped to [0, W-1] x [0, H-1] (first corner) and [0, W] x [0, H] (second), as the original."""
    x, y, w, h = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    first = [np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)]
    return np.stack(first + [np.clip(x + w, 0, width), np.clip(y + h, 0, height)], axis=1)


def _overlap(boxes, others, by_own_area=False):
    """(N, M) intersection over union, or over the area of ``boxes``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=2)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    total = area[:, None] if by_own_area else area[:, None] + other_area[None] - intersection
    return intersection / (total + _EPSILON)


def _match(image):
    """(N,) int8 outcome of each detection: 1 matched a person, 0 false, -1 discarded by an ignore region."""
    outcome = np.where(image.det_in_ignore, -1, 0).astype(np.int8)
    iou = np.where(image.iou > _MIN_OVERLAP, image.iou, 0.0)
    for row in np.flatnonzero(iou.any(axis=1)):
        person = int(iou[row].argmax())
        if iou[row, person] > 0:
            outcome[row] = 1
            iou[:, person] = 0.0  # a person is found once
    return outcome


def _curve_metrics(is_true, num_gt, num_images, floor):
    """AP, MR and recall from the detections' outcomes (1 or 0) by descending score."""
    if num_gt == 0:
        warnings.warn("CrowdHuman: the ground truth has no person that is not ignored; MR and recall are NaN.")
    found = np.cumsum(is_true, dtype=np.float64)
    false = np.arange(1, len(is_true) + 1) - found
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = found / np.float64(num_gt)
    precision = found / np.maximum(found + false, 1)
    fppi = false / num_images
    # before the first detection nothing is found: this point alone is left where there are no detections
    miss_rate = 1 - recall if len(is_true) else np.full(1, 1.0 if num_gt else np.nan)
    at_refs = [miss_rate[min(int(np.searchsorted(fppi, ref)), len(miss_rate) - 1)] for ref in FPPI_REFS]
    with np.errstate(divide="ignore"):
        log_average = float(np.exp(np.mean(np.log(np.maximum(at_refs, floor)))))
    widths = np.diff(recall)
    return {
        "AP": float(np.nansum(widths * (precision[1:] + precision[:-1]) / 2)),
        "MR": log_average,
        "recall": float(recall[-1]) if len(recall) else (0.0 if num_gt else float("nan")),
        "miss_rate_at_refs": [float(value) for value in at_refs],
        "num_gt": num_gt,
        "num_images": num_images,
        "max_fppi": float(fppi[-1]) if len(fppi) else 0.0,
    }


class CrowdHumanMetrics:
    """Extra metrics of :class:`COCODetectionEvaluator`: CrowdHuman's, in percent, under the task "crowdhuman".

    Crowd annotations (``iscrowd``) and those with ``ignore`` are the ignore regions.

    Args:
        miss_rate_floor: see :func:`evaluate_crowdhuman`; 0 or more.
    """

    def __init__(self, miss_rate_floor=0.0):
        if not 0 <= miss_rate_floor < 1:
            raise ValueError(f"CrowdHumanMetrics: miss_rate_floor must be in [0, 1), got {miss_rate_floor}.")
        self.miss_rate_floor = miss_rate_floor

    def __call__(self, ground_truth, detections, *, task="bbox", max_dets=None, backend="auto"):
        """``({"crowdhuman": {"AP50", "mMR", "recall", "JI"}}, notes)`` of boxes; nothing for other tasks.

        ``max_dets`` and ``backend`` are not used: all detections count. DataError if there are several classes.
        """
        if task != "bbox":
            return {}, []
        if len(ground_truth.class_names) != 1:
            raise DataError(
                f"CrowdHumanMetrics needs one class (person); {ground_truth.name!r} has {ground_truth.class_names}."
            )
        images, found = _plain_arrays(ground_truth, detections)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = evaluate_crowdhuman(images, found, miss_rate_floor=self.miss_rate_floor)
        names = {"AP50": "AP", "mMR": "MR", "recall": "recall", "JI": "JI"}
        return {"crowdhuman": {k: 100 * values[v] for k, v in names.items()}}, [str(w.message) for w in caught]


def _plain_arrays(ground_truth, detections):
    images = [{**image, "boxes": [], "ignore": []} for image in ground_truth.images]
    for annotation in ground_truth.annotations:
        image = images[annotation["image_id"]]
        image["boxes"].append(annotation["bbox"])
        image["ignore"].append(int(bool(annotation["iscrowd"] or annotation["ignore"])))
    found = {}
    for detection in detections:
        boxes, scores = found.setdefault(detection["image_id"], ([], []))
        boxes.append(detection["bbox"])
        scores.append(detection["score"])
    return images, found
