"""Average recall of box proposals (RPN alone): AR@100, AR@300, AR@1000, over all objects and by size.

COCO's own matching with all classes taken as one, so crowds are handled as in AP. detectron2's ``box_proposals``
metric matches more loosely and leaves images without proposals out; its values are a little higher.
"""

import numpy as np

from .coco_backend import match_and_accumulate, resolve_backend
from .coco_metrics import AREAS

__all__ = ["METRICS", "proposal_recall"]

_LIMITS = (100, 300, 1000)
METRICS = tuple(f"AR{suffix}@{limit}" for limit in _LIMITS for suffix in AREAS)  # what proposal_recall gives

_IMAGES_AT_ONCE = 256  # bounds the memory: 1000 proposals an image become dicts


def proposal_recall(ground_truth, proposals, *, limits=_LIMITS, backend="auto"):
    """AR of proposals, in percent.

    Args:
        ground_truth: :class:`GroundTruth`.
        proposals: ``{internal image id: (boxes (N, 4) xyxy in pixels, scores (N,))}``, NumPy arrays; an image that is
            not there has no proposals.
        limits: ascending numbers of proposals an image.

    Returns:
        ``{"AR@100": ..., "ARs@100": ..., ...}``: for every limit all, small, medium and large; NaN without objects.
    """
    limits, backend = list(limits), resolve_backend(backend)
    matched = np.zeros((10, len(AREAS), len(limits)))
    num_objects = np.zeros(len(AREAS))
    for start in range(0, len(ground_truth.images), _IMAGES_AT_ONCE):
        images = range(start, min(start + _IMAGES_AT_ONCE, len(ground_truth.images)))
        detections = [d for image in images for d in _as_detections(image, proposals.get(image))]
        _, recall = match_and_accumulate(ground_truth, detections, "bbox", limits, backend, images, False)
        objects_here = _objects_by_area(ground_truth, images)
        num_objects += objects_here
        # recall is matched / objects, so whole numbers add up over the chunks without loss
        matched += np.rint(np.maximum(recall[:, 0], 0) * objects_here[:, None])
    with np.errstate(invalid="ignore"):
        average_recall = 100 * (matched / num_objects[:, None]).mean(axis=0)
    return {
        f"AR{suffix}@{limit}": float(average_recall[area, m])
        for m, limit in enumerate(limits)
        for suffix, area in AREAS.items()
    }


def _as_detections(image, boxes_and_scores):
    if boxes_and_scores is None:
        return []
    boxes, scores = boxes_and_scores
    x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    xywh = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    return [
        {"image_id": image, "category_id": 0, "bbox": box, "score": score}
        for box, score in zip(xywh, np.asarray(scores, dtype=np.float64).tolist())
    ]


def _objects_by_area(ground_truth, images):
    """Number of objects (no crowds) in each of COCO's area ranges, both ends included, in these images: (4,)."""
    ranges = [(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)]
    wanted, counts = set(images), np.zeros(len(ranges))
    for annotation in ground_truth.annotations:
        if annotation["image_id"] in wanted and not annotation["iscrowd"]:
            counts += [low <= annotation["area"] <= high for low, high in ranges]
    return counts
