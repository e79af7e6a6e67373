"""A data set's ground truth in COCO form, under ids of our own.

COCO's evaluation code has traps with ids: an annotation with id 0 counts as unmatched, ids that occur twice overwrite
each other, and ids that are strings fail. So images, categories and annotations are renumbered here (images by
ascending id, which keeps the order in which ties are broken); results files keep the data set's ids.
"""

import math
import os

import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict

from ..data.check_masks import usable_polygons
from ..data.coco_file import read_content
from ..data.coco_values import as_number
from ..data.image_names import find_images
from ..utils.errors import DataError

__all__ = ["GroundTruth"]


def _sorted_ids(ids):
    try:
        return sorted(ids)
    except TypeError:  # numbers and strings mixed
        return sorted(ids, key=lambda i: (str(type(i)), str(i)))


class GroundTruth:
    """Images, categories and annotations of one data set.

    Attributes:
        image_ids: the data set's image ids, ascending; position = internal id.
        category_ids: the data set's category ids, ascending; position = internal id.
        class_names: names, in the order of ``category_ids``.
        images: internal image dicts ``{id, width, height, file_name}``.
        annotations: internal annotation dicts ``{id (from 1), image_id, category_id, bbox xywh, area, iscrowd, ignore,
            segmentation?}``; ``source_id`` is the id in the data set.
        has_annotations: False for a test set without an ``annotations`` key: nothing can be evaluated.
        class_to_category: the data set's category id of each class index of the model.
        json_file: absolute path of the COCO file that it was read from; "": it came from elsewhere.
        image_root: the folder that the file names start from; "": they are whole paths.
    """

    json_file = image_root = ""

    def __init__(self, coco, name="dataset", class_to_category=None):
        """``coco``: a dict in COCO's format; it is not changed. Raises DataError, naming the data set, the image or
        annotation and the field, where something is missing."""
        self.name = name
        _require(coco, ("images", "categories"), f"data set {name!r}")
        self.has_annotations = "annotations" in coco
        self.image_ids = _sorted_ids({image["id"] for image in coco["images"]})
        categories = {category["id"]: category.get("name", str(category["id"])) for category in coco["categories"]}
        self.category_ids = _sorted_ids(categories)
        self.class_names = [categories[i] for i in self.category_ids]
        self.image_index = {image_id: k for k, image_id in enumerate(self.image_ids)}
        self.category_index = {category_id: k for k, category_id in enumerate(self.category_ids)}
        self.images = self._internal_images(coco["images"])
        self.annotations = self._internal_annotations(coco.get("annotations", []))
        self.class_to_category = list(class_to_category) if class_to_category is not None else self.category_ids
        self.indexed = {}  # COCO objects of the back ends, made once (see coco_backend.py)

    @classmethod
    def from_file(cls, path, name=None, class_to_category=None):
        """From a COCO JSON file, read as for training; ``DataError`` with what is wrong in it."""
        ground_truth = cls(read_content(path), name or str(path), class_to_category)
        ground_truth.json_file = os.path.abspath(path)
        return ground_truth

    @classmethod
    def from_catalog(cls, dataset_name):
        """From a data set of detectron2's catalog: its ``json_file``, or else its dataset dicts, converted in memory
        at each call (a converted file on disk could be one of older data)."""
        metadata = MetadataCatalog.get(dataset_name)
        if "thing_dataset_id_to_contiguous_id" not in metadata.as_dict() or "json_file" not in metadata.as_dict():
            DatasetCatalog.get(dataset_name)  # loading a data set completes its metadata
        json_file = metadata.get("json_file")
        contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
        order = None if contiguous is None else sorted(contiguous, key=contiguous.get)
        if json_file is None:
            coco = convert_to_coco_dict(dataset_name)
            coco.setdefault("annotations", [])  # left out by detectron2 when there is none
            return cls(coco, dataset_name, order)
        ground_truth = cls.from_file(json_file, dataset_name, order)
        ground_truth.image_root = metadata.get("image_root") or ""
        return ground_truth

    def image_path(self, index):
        """The file of the image with this internal id; it need not be there."""
        name = str(self.images[index]["file_name"])
        return os.path.join(self.image_root, find_images(self.image_root, [name])[0]) if self.image_root else name

    def objects_per_image(self):
        """Number of annotations that are neither crowd nor ignored, by internal image id (list of int)."""
        counts = [0] * len(self.image_ids)
        for annotation in self.annotations:
            counts[annotation["image_id"]] += not (annotation["iscrowd"] or annotation["ignore"])
        return counts

    def _internal_images(self, images):
        internal = {}
        for image in images:
            _require(image, ("id", "width", "height"), f"data set {self.name!r}, image {image.get('id')!r}")
            index = self.image_index[image["id"]]
            internal[index] = {
                "id": index,
                "width": int(image["width"]),
                "height": int(image["height"]),
                "file_name": image.get("file_name", ""),
            }
        return [internal[index] for index in range(len(self.image_ids))]

    def _internal_annotations(self, annotations):
        internal = []
        for annotation in annotations:
            where = f"data set {self.name!r}, annotation {annotation.get('id')!r}"
            _require(annotation, ("image_id", "category_id", "bbox"), where)
            internal.append(self._internal_annotation(annotation, len(internal) + 1, where))
        return internal

    def _internal_annotation(self, annotation, new_id, where):
        for key, index in (("image_id", self.image_index), ("category_id", self.category_index)):
            if annotation[key] not in index:
                raise DataError(f"{where}: its {key} {annotation[key]!r} is not in the data set's list of them.")
        x, y, width, height = annotation["bbox"]
        record = {
            "id": new_id,
            "source_id": annotation.get("id"),
            "image_id": self.image_index[annotation["image_id"]],
            "category_id": self.category_index[annotation["category_id"]],
            "bbox": [x, y, width, height],
            "iscrowd": int(annotation.get("iscrowd", 0)),
            "ignore": int(annotation.get("ignore", 0)),
        }
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, (list, tuple)):
            segmentation = usable_polygons(segmentation)  # on others one library fails, and the other does not
        if segmentation:
            record["segmentation"] = segmentation
        record["area"] = self._area(annotation.get("area"), record)
        return record

    def _area(self, given, record):
        """The area as given; where that is no positive number, that of the mask or of the box."""
        if math.isfinite(as_number(given)) and given > 0:
            return given
        image, mask = self.images[record["image_id"]], record.get("segmentation")
        if isinstance(mask, list):
            mask = mask_util.merge(mask_util.frPyObjects(mask, image["height"], image["width"]))
        elif mask and isinstance(mask["counts"], list):
            mask = mask_util.frPyObjects(mask, *mask["size"])
        return (float(mask_util.area(mask)) if mask else 0.0) or record["bbox"][2] * record["bbox"][3]


def _require(mapping, keys, where):
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise DataError(f"{where} lacks {missing}; it has {sorted(mapping)}.")
