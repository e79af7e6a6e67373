"""What a data set is: its classes, its size, a digest of its annotations. And whose classes are whose."""

import hashlib
import json
import os
from typing import NamedTuple, Optional, Tuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from .annotation_table import table_from_dicts
from .coco_file import file_state, read_coco
from .problems import Report
from .registered import load_registered, require_files, require_name

__all__ = [
    "ClassMatch", "DatasetIdentity", "dataset_identity", "identity_of_file", "identity_of_table", "match_classes",
]  # fmt: skip

_KNOWN = {}
"""{(annotation file, its state, image folder): identity}."""


class DatasetIdentity(NamedTuple):
    """Plain values only, so that a checkpoint can hold them (``_asdict()``)."""

    name: str
    classes: Tuple[Tuple[int, str], ...]  # (category id, name) in the order of the model's class indices
    images: int
    annotations: int  # that are read: without broken boxes, with crowds
    digest: str  # of what is read of the annotations, whatever the file's formatting and the order of keys and images
    image_root: str  # absolute path; empty if the images are in several folders


def dataset_identity(name):
    """The :class:`DatasetIdentity` of a registered data set.

    Raises:
        DataError: there is no such name, or its files are missing or cannot be read.
    """
    require_name(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get("builds_files"):
        DatasetCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if not json_file or not image_root:
        return identity_of_table(table_from_dicts(load_registered(name), metadata.get("thing_classes", [])), name)
    require_files(name)
    if _key(json_file, image_root) not in _KNOWN:
        report = Report(f"{name} ({json_file})")
        found = read_coco(json_file, image_root, report)
        report.raise_if_errors()
        identity_of_file(json_file, image_root, found[1])
    return _KNOWN[_key(json_file, image_root)]._replace(name=name)


def _key(json_file, image_root):
    return os.path.abspath(json_file), file_state(json_file), str(image_root)


def identity_of_file(json_file, image_root, table):
    """The :class:`DatasetIdentity` of a file that was read to this table without errors; it is remembered."""
    identity = identity_of_table(table, str(json_file), str(image_root))
    _KNOWN[_key(json_file, image_root)] = identity
    return identity


def identity_of_table(table, name, image_root=None):
    """The :class:`DatasetIdentity` of an :class:`~.annotation_table.AnnotationTable` without errors."""
    folders = {os.path.dirname(os.path.abspath(path)) for path in table.paths} if image_root is None else {image_root}
    return DatasetIdentity(
        name=name, classes=tuple(zip(table.class_ids, table.class_names)), images=len(table.image_ids),
        annotations=int((~table.left_out).sum()), digest=_digest(table),
        image_root=os.path.abspath(folders.pop()) if len(folders) == 1 else "",
    )


def _digest(table):
    """SHA-256 of classes, images in the order of their ids, and each image's annotations in the order of the file."""
    order = sorted(range(len(table.image_ids)), key=lambda row: str(table.image_ids[row]))
    images = [(str(table.image_ids[row]), table.file_names[row]) for row in order]
    place = np.empty(len(order) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    rows = np.flatnonzero(~table.left_out)
    rows = rows[np.argsort(place[table.image_rows[rows]], kind="stable")]
    digest = hashlib.sha256()
    _add(digest, [list(zip(map(str, table.class_ids), table.class_names)), images, [str(table.annotated)]])
    columns = (table.sizes[order], place[table.image_rows[rows]], table.class_rows[rows], table.boxes[rows],
               table.areas[rows], table.crowd[rows])
    for column in columns:
        digest.update(np.ascontiguousarray(column, dtype=np.float64).tobytes())
    for row in rows.tolist():
        _add_mask(digest, table.segmentations[row])
    return digest.hexdigest()


def _add(digest, value):
    digest.update(json.dumps(value, sort_keys=True, default=lambda raw: bytes(raw).decode("latin1")).encode())


def _add_mask(digest, segmentation):
    if isinstance(segmentation, (list, tuple)):
        _add(digest, [len(polygon) for polygon in segmentation])
        digest.update(np.concatenate([np.asarray(p, dtype=np.float64) for p in segmentation]).tobytes())
    else:
        _add(digest, segmentation)


class ClassMatch(NamedTuple):
    """How the classes of one data set stand to those of another, by name."""

    indices: Tuple[Optional[int], ...]  # for every class of the other: the index of the own class, None if none
    missing: Tuple[str, ...]  # own names that the other has not
    new: Tuple[str, ...]  # the other's names that are none of the own
    doubles: Tuple[str, ...]  # names that stand for several classes: matched by id where the ids agree, else by order

    @property
    def is_same(self):
        """Whether both have the same names in the same order."""
        return not self.missing and self.indices == tuple(range(len(self.indices)))


def match_classes(own, other):
    """Matches classes by name.

    Args:
        own: ((category id, name), ...) in the order of the class indices, as in ``DatasetIdentity.classes``: those that
            a model was trained on.
        other: the same of another data set, for example the one to evaluate on.

    Returns:
        :class:`ClassMatch`.
    """
    open_classes = dict(enumerate(own))
    indices = [None] * len(other)
    for same in (lambda a, b: tuple(a) == tuple(b), lambda a, b: a[1] == b[1]):  # those of equal ids first
        for k, wanted in enumerate(other):
            if indices[k] is None:
                indices[k] = next((i for i, mine in open_classes.items() if same(mine, wanted)), None)
                open_classes.pop(indices[k], None)
    names = [name for _, name in own], [name for _, name in other]
    return ClassMatch(
        tuple(indices), missing=tuple(name for _, name in open_classes.values()),
        new=tuple(other[k][1] for k, index in enumerate(indices) if index is None),
        doubles=tuple(dict.fromkeys(n for found in names for n in found if found.count(n) > 1)),
    )
