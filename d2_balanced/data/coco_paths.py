"""Own data in COCO format, given by the paths of an annotation file and of an image folder; no Python needed."""

import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import DataError
from .coco_file import load_dicts
from .coco_json import read_lists
from .coco_records import read_classes
from .problems import Report

__all__ = ["OwnDataset", "register_by_path", "register_train_val", "read_categories"]

TRAIN_NAME, VAL_NAME = "own_train", "own_val"


class OwnDataset:
    """A data set registered by path.

    Attributes:
        name: its name in detectron2's ``DatasetCatalog``.
        json_file, image_root: absolute paths.
        categories: {category id in the file: name}, in the order of the ids, which is the order of the model's classes.
    """

    def __init__(self, name, json_file, image_root, categories):
        self.name, self.json_file, self.image_root, self.categories = name, json_file, image_root, categories

    @property
    def class_names(self):
        return list(self.categories.values())

    @property
    def num_classes(self):
        return len(self.categories)


def read_categories(json_file):
    """{category id: name} of a COCO file in the order of the ids; ``DataError`` if the file cannot be used."""
    report = Report(str(json_file))
    content = read_lists(str(json_file), report)
    categories = {} if content is None else read_classes(content["categories"], report)
    report.raise_if_errors()
    return categories


def register_by_path(name, json_file, image_root, *, replace=False):
    """Registers a COCO-format data set under ``name`` and returns it as an :class:`OwnDataset`.

    Only the annotation file is read; ``check_dataset`` looks at the rest. Registering the same paths again is fine.

    Args:
        replace: whether a name that was registered with other paths is taken over; otherwise that is an error.
    Raises:
        DataError: a path does not exist, the file has no usable categories, or the name is taken.
    """
    json_file, image_root = (os.path.abspath(os.path.expanduser(path)) for path in (json_file, image_root))
    categories = read_categories(json_file)
    if not os.path.isdir(image_root):
        what = "is a file, not a folder" if os.path.exists(image_root) else "does not exist"
        raise DataError(f"image folder {image_root} (for {json_file}) {what}")
    dataset = OwnDataset(name, json_file, image_root, categories)
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        if metadata.get("own_categories") == categories and (metadata.get("json_file"), metadata.get("image_root")) == (
                json_file, image_root):
            return dataset
        if not replace:
            taken = metadata.get("json_file", "other data")
            raise DataError(f"the name '{name}' is registered already, for {taken}; choose another for {json_file}")
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _register(dataset)
    return dataset


def _register(dataset):
    DatasetCatalog.register(dataset.name, lambda: load_dicts(dataset.json_file, dataset.image_root, dataset.name))
    MetadataCatalog.get(dataset.name).set(
        json_file=dataset.json_file, image_root=dataset.image_root, evaluator_type="coco", read_by_d2_balanced=True,
        thing_classes=dataset.class_names, own_categories=dataset.categories,
        thing_dataset_id_to_contiguous_id={category_id: k for k, category_id in enumerate(dataset.categories)},
    )


def register_train_val(train_json=None, train_images=None, val_json=None, val_images=None):
    """Registers own data as ``own_train`` and ``own_val``; a split whose two paths are empty is left out.

    Returns:
        (training :class:`OwnDataset` or None, validation :class:`OwnDataset` or None)
    Raises:
        DataError: half of a pair of paths is missing, a path does not exist, or the splits have no class in common.
    """
    train = _register_split("train", TRAIN_NAME, train_json, train_images)
    val = _register_split("val", VAL_NAME, val_json, val_images)
    if train and val and not set(train.class_names) & set(val.class_names):
        raise DataError(_category_difference(train, val))
    return train, val


def _register_split(split, name, json_file, image_root):
    if not json_file and not image_root:
        return None
    if not json_file or not image_root:
        given, needed = ("json", "images") if json_file else ("images", "json")
        keys = "DATASETS.{0}_JSON, DATASETS.{0}_IMAGES".format(split.upper())
        raise DataError(f"--{split}-{given} needs --{split}-{needed} beside it (in configs: {keys})")
    return register_by_path(name, json_file, image_root, replace=True)


def _category_difference(train, val):
    lines = []
    for category_id in sorted({**train.categories, **val.categories}):
        names = [dataset.categories.get(category_id) for dataset in (train, val)]
        if names[0] != names[1]:
            shown = ["missing" if name is None else repr(name) for name in names]
            lines.append(f"id {category_id}: {shown[0]} in training, {shown[1]} in validation")
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    return (f"the categories of {train.json_file} and {val.json_file} have no name in common: {'; '.join(lines[:5])}"
            f"{more}. Classes are matched by name.")
