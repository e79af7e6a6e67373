"""Repeat factors: images with rare classes come more often than once an epoch, and what each class then gets.

The factors are detectron2's (Gupta et al., LVIS, CVPR 2019, appendix B.2): ``max(1, sqrt(threshold / f(c)))`` of a
class that a share f(c) of the images has, and an image's is the largest of its classes'.
"""

import math
from typing import Dict, List, NamedTuple, Sequence

from detectron2.data.samplers import RepeatFactorTrainingSampler
from tabulate import tabulate

__all__ = ["ClassShare", "RepeatFactors", "table_as_dicts"]

_LISTED = 30  # classes in a description


class ClassShare(NamedTuple):
    """A class: ``images`` that show it, its ``factor``, its ``objects``, and how many of them an epoch has, repeated."""

    images: int
    factor: float
    objects: int
    objects_an_epoch: float


class RepeatFactors:
    """The factors of a training set.

    Args:
        dataset: list of data set dicts with ``annotations``, as they are trained on; crowds count as detectron2 counts
            them, for the share of images, and are no objects.
        threshold: classes that fewer images have than this share are repeated, in (0, 1].

    Attributes:
        of_images: (len(dataset),) float32 tensor, the expected appearances of every image in an epoch.
        of_classes: ``{category_id: ClassShare}``, the rarest first.
    """

    def __init__(self, dataset: Sequence[dict], threshold: float):
        self.threshold = threshold
        self.of_images = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dataset, threshold)
        self.of_classes = self._shares(dataset)

    def _shares(self, dataset) -> Dict[int, ClassShare]:
        images, objects, repeated = {}, {}, {}
        for image, factor in zip(dataset, self.of_images.tolist()):
            for category in {annotation["category_id"] for annotation in image["annotations"]}:
                images[category] = images.get(category, 0) + 1
            for category in (a["category_id"] for a in image["annotations"] if not a.get("iscrowd", 0)):
                objects[category] = objects.get(category, 0) + 1
                repeated[category] = repeated.get(category, 0.0) + factor
        shares = {
            category: ClassShare(
                number,
                max(1.0, math.sqrt(self.threshold * len(dataset) / number)),
                objects.get(category, 0),
                repeated.get(category, 0.0),
            )
            for category, number in images.items()
        }
        return dict(sorted(shares.items(), key=lambda item: (item[1].images, item[0])))

    def describe(self, class_names: Sequence[str] = ()) -> str:
        """Several lines: how much longer an epoch is, and of every class (the rarest ones of many) what it gets."""
        more = self.of_images > 1
        total, largest = float(self.of_images.sum()), float(self.of_images.max()) if len(self.of_images) else 1.0
        head = (
            f"Repeat factors at a threshold of {self.threshold:g}: an epoch of {len(self.of_images)} images has "
            f"{total:.1f} on average; {int(more.sum())} come more often than once, at most {largest:.2f} times."
        )
        rows: List[list] = [
            [_name(category, class_names), s.images, f"{s.factor:.2f}", s.objects, f"{s.objects_an_epoch:.1f}"]
            for category, s in list(self.of_classes.items())[:_LISTED]
        ]
        table = tabulate(rows, ["class", "images", "factor", "objects", "objects an epoch"], disable_numparse=True)
        left_out = len(self.of_classes) - len(rows)
        return "\n".join([head, table] + ([f"and {left_out} more frequent classes"] if left_out else []))


def _name(category: int, class_names: Sequence[str]) -> str:
    return str(class_names[category]) if category < len(class_names) else str(category)


def table_as_dicts(table) -> List[dict]:
    """The images of an ``AnnotationTable`` that are trained on, those with an object, as data set dicts of classes."""
    images: Dict[int, list] = {}
    usable = ~table.left_out & (table.image_rows >= 0) & (table.class_rows >= 0)
    for image, category, crowd in zip(table.image_rows[usable], table.class_rows[usable], table.crowd[usable]):
        images.setdefault(int(image), []).append({"category_id": int(category), "iscrowd": int(crowd)})
    return [{"annotations": found} for found in images.values() if not all(each["iscrowd"] for each in found)]
