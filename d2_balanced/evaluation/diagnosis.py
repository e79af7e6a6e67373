"""Says why a metric is 0 or undefined, in words that name what to look at."""

import numpy as np
import pycocotools.mask as mask_util

__all__ = ["diagnose", "unknown_id_notes"]

_SIZES = {"s": "below 32 x 32", "m": "between 32 x 32 and 96 x 96", "l": "above 96 x 96"}
_LOW_SCORE = 0.05  # detectron2's default MODEL.ROI_HEADS.SCORE_THRESH_TEST
_IMAGES_LOOKED_AT = 200  # for the overlap of predictions and objects


def diagnose(ground_truth, translated, metrics, task):
    """Reasons for zeros and undefined values among ``metrics`` (:class:`CocoMetrics`); [] where all is well.

    ``translated`` is what ``internal_detections`` returned for the same predictions.
    """
    notes = unknown_id_notes(ground_truth, translated)
    ap = metrics.ap()
    if np.isnan(ap):
        notes.append("AP is undefined: the ground truth has no object (crowd regions do not count).")
        return [f"{task}: {note}" for note in notes]
    if ap == 0:
        notes += _why_zero(ground_truth, translated)
    for suffix, pixels in _SIZES.items():
        if np.isnan(metrics.ap(area=suffix)):
            notes.append(f"AP{suffix} is undefined: the ground truth has no object {pixels} pixels.")
    empty = [name for k, name in enumerate(ground_truth.class_names) if np.isnan(metrics.ap(class_index=k))]
    if empty:
        notes.append(f"{len(empty)} classes are left out of the mean, having no object: {_some(empty)}.")
    return [f"{task}: {note}" for note in notes]


def unknown_id_notes(ground_truth, translated):
    """Notes on predictions that the evaluation had to leave out."""
    kinds = [("image", translated.unknown_images, ground_truth.image_ids)]
    kinds.append(("category", translated.unknown_categories, ground_truth.category_ids))
    return [
        f"{sum(unknown.values())} predictions were left out: their {kind} ids (such as {_some(unknown)}) are not in "
        f"the ground truth of {ground_truth.name!r} (which has {_some(known)}). Is it the right annotation file?"
        for kind, unknown, known in kinds
        if unknown
    ]


def _why_zero(ground_truth, translated):
    detections = translated.detections
    if not detections:
        if translated.unknown_images or translated.unknown_categories:
            return ["AP is 0: no prediction has ids that the ground truth knows."]
        return [
            "AP is 0: there are no predictions. The model found nothing, or every score was below its threshold "
            "(MODEL.ROI_HEADS.SCORE_THRESH_TEST)."
        ]
    notes = ["AP is 0: no prediction of the right class overlaps an object with IoU 0.5."]
    best_score = max(detection["score"] for detection in detections)
    if best_score < _LOW_SCORE:
        notes.append(f"All scores are low: the highest is {best_score:.4f}. An untrained model, or one that diverged?")
    any_class, own_class = _best_overlaps(ground_truth, detections)
    if any_class >= 0.5 > own_class:
        notes.append(f"Boxes fit (IoU up to {any_class:.2f}), but those of other classes: are the class ids mixed up?")
    elif any_class < 0.5:
        notes.append(
            f"The best IoU of any box with any object is {any_class:.2f}. Look at the pictures; a wrong box format "
            "(corners for width and height) or image size gives this too."
        )
    return notes


def _best_overlaps(ground_truth, detections):
    """Highest box IoU of a prediction with an object of any class, and of its own, in the first images."""
    boxes = {}
    for kind, records in enumerate((ground_truth.annotations, detections)):
        for record in records:
            boxes.setdefault(record["image_id"], ([], []))[kind].append(record)
    any_class = own_class = 0.0
    in_both = [pair for _, pair in sorted(boxes.items()) if pair[0] and pair[1] and "bbox" in pair[1][0]]
    for objects, predicted in in_both[:_IMAGES_LOOKED_AT]:
        ious = mask_util.iou(_boxes(predicted), _boxes(objects), [0] * len(objects))
        same = _classes(predicted)[:, None] == _classes(objects)[None]
        any_class, own_class = max(any_class, ious.max()), max(own_class, (ious * same).max())
    return any_class, own_class


def _boxes(records):
    return np.asarray([record["bbox"] for record in records], dtype=np.float64)


def _classes(records):
    return np.asarray([record["category_id"] for record in records])


def _some(values, count=5):
    values = list(values)
    return ", ".join(repr(value) for value in values[:count]) + (", ..." if len(values) > count else "")
