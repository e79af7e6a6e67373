"""Detections in COCO's results format: reading them, and translating their ids for the evaluation."""

from collections import Counter
from typing import List, NamedTuple

from ..utils.errors import DataError
from ..utils.json_file import read_json

__all__ = ["TranslatedResults", "internal_detections", "load_results"]


class TranslatedResults(NamedTuple):
    """``detections`` with internal ids; how many detections had which unknown image and category id."""

    detections: List[dict]
    unknown_images: Counter
    unknown_categories: Counter


def load_results(path):
    """The list in a COCO results file; DataError if it is no JSON list of ``{image_id, category_id, score, ...}``."""
    results = read_json(path)
    if not isinstance(results, list):
        raise DataError(f"{path} holds a {type(results).__name__}; a COCO results file is a list of detections.")
    for position, result in enumerate(results):
        missing = [key for key in ("image_id", "category_id", "score") if key not in result]
        if missing:
            raise DataError(f"{path}, detection number {position}: {missing} is missing; it has {sorted(result)}.")
    return results


def internal_detections(ground_truth, results):
    """Translates the data set's ids to internal ones; detections with unknown ids are left out and counted.

    Detections come out by ascending image id, those of one image in their old order: the ties between equal scores
    are then the same whatever process saw an image first.
    """
    detections, unknown_images, unknown_categories = [], Counter(), Counter()
    for result in results:
        image = ground_truth.image_index.get(result["image_id"])
        category = ground_truth.category_index.get(result["category_id"])
        if image is None:
            unknown_images[result["image_id"]] += 1
        elif category is None:
            unknown_categories[result["category_id"]] += 1
        else:
            detections.append({**result, "image_id": image, "category_id": category})
    detections.sort(key=lambda detection: detection["image_id"])
    return TranslatedResults(detections, unknown_images, unknown_categories)
