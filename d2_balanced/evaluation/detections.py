"""Detections in COCO's results format: reading them, and translating their ids for the evaluation."""

from collections import Counter
from math import isfinite
from typing import List, NamedTuple

from ..data.coco_values import as_number, id_key
from ..utils.errors import DataError
from ..utils.json_file import read_json

__all__ = ["TranslatedResults", "internal_detections", "known_detections", "load_results"]


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
        fault = _fault(result)
        if fault:
            raise DataError(f"{path}, detection number {position}: {fault}.")
    return results


def _fault(result):
    """What is wrong with an entry of a results file, or an empty text."""
    if not isinstance(result, dict):
        return f"it is no record, but {result!r}"
    missing = [key for key in ("image_id", "category_id", "score") if key not in result]
    if missing:
        return f"{missing} is missing; it has {sorted(result)}"
    numbers = {"score": [result["score"]], "bbox": result.get("bbox", [0] * 4)}
    for key, values in numbers.items():
        if not isinstance(values, list) or len(values) not in (1, 4) or not all(isfinite(as_number(v)) for v in values):
            return f"its {key} is {result[key]!r}, not {'a number' if key == 'score' else 'four numbers'}"
    return ""


def _key(value):
    """What ids are compared by, as those of annotations are: 7, 7.0 and "7" are one."""
    key = id_key(value)
    return repr(value) if key is None else key


def internal_detections(ground_truth, results):
    """Translates the data set's ids to internal ones; detections with unknown ids are left out and counted.

    Detections come out by ascending image id, those of one image in their old order: the ties between equal scores
    are then the same whatever process saw an image first.
    """
    detections, unknown_images, unknown_categories = [], Counter(), Counter()
    images = {_key(i): k for i, k in ground_truth.image_index.items()}
    categories = {_key(i): k for i, k in ground_truth.category_index.items()}
    for result in results:
        image_id, category_id = _key(result["image_id"]), _key(result["category_id"])
        image, category = images.get(image_id), categories.get(category_id)
        if image is None:
            unknown_images[image_id] += 1
        elif category is None:
            unknown_categories[category_id] += 1
        else:
            detections.append({**result, "image_id": image, "category_id": category})
    detections.sort(key=lambda detection: detection["image_id"])
    return TranslatedResults(detections, unknown_images, unknown_categories)


def known_detections(ground_truth, path):
    """The detections in a COCO results file, with internal ids; ``DataError`` if some have ids that the data set has not."""
    translated = internal_detections(ground_truth, load_results(path))
    unknown = translated.unknown_images + translated.unknown_categories
    if unknown:
        raise DataError(
            f"{path}: {sum(unknown.values())} detections have ids that {ground_truth.name!r} has not. Are they of other data, or "
            "were the data changed since?"
        )
    return translated.detections
