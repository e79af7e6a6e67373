"""CrowdHuman (Shao et al., 2018): full-body boxes of persons, and ignore regions.

``crowdhuman_train`` and ``crowdhuman_val`` need ``annotation_train.odgt`` and ``annotation_val.odgt`` and all images
in ``Images`` below ``$DETECTRON2_DATASETS/crowdhuman``. They are converted to COCO JSON at first use.
``python -m d2_balanced.data.crowdhuman --odgt FILE --images FOLDER --output FILE.json`` converts by hand.

A line of an ``.odgt`` file is the JSON of one image: ``ID``, and ``gtboxes`` with ``tag``, ``fbox`` (the full body: x,
y, width, height in pixels; it may reach outside of the image) and perhaps ``extra.ignore``. Boxes of another tag than
"person" (they are tagged "mask") and those with ``ignore`` 1 are ignore regions: ``iscrowd`` in COCO's format.
"""

import hashlib
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..arguments.crowdhuman import argument_parser
from ..utils.command import command
from ..utils.errors import DataError, OutputError, usage
from .check_boxes import tolerated
from .image_file import image_facts
from .json_cache import cached_json, write_json
from .problems import Report

__all__ = ["CROWDHUMAN_SPLITS", "crowdhuman_image_root", "ensure_crowdhuman_json", "convert_crowdhuman", "main"]

VERSION = 1
"""Part of the fingerprint that tells whether a converted file is still right."""

CROWDHUMAN_SPLITS = {"crowdhuman_train": "annotation_train.odgt", "crowdhuman_val": "annotation_val.odgt"}
"""{name: annotation file below the data set's folder}."""

_ENDINGS = (".jpg", ".png", ".jpeg")


def crowdhuman_image_root(root):
    """The folder of the images, for the folder ``root`` of all data sets."""
    return os.path.join(root, "crowdhuman", "Images")


def ensure_crowdhuman_json(name, root):
    """Path of the COCO JSON of a name in :data:`CROWDHUMAN_SPLITS`; converts if there is none or it is out of date.

    Raises:
        DataError: the annotation file or images are missing, or wrong: see :func:`convert_crowdhuman`.
    """
    base = os.path.join(root, "crowdhuman")
    odgt, images = os.path.join(base, CROWDHUMAN_SPLITS[name]), crowdhuman_image_root(root)
    try:
        with open(odgt, "rb") as f:
            digest = hashlib.sha256(f.read() + f"{VERSION} {images}".encode()).hexdigest()[:12]
    except OSError as error:
        raise DataError(
            f"CrowdHuman is not where it is looked for: {error}. The environment variable DETECTRON2_DATASETS (now "
            f"{os.getenv('DETECTRON2_DATASETS', 'not set: datasets below the working folder')}) must name the folder "
            f"that has crowdhuman/{CROWDHUMAN_SPLITS[name]} and crowdhuman/Images.") from None
    file_name = f"{name}-{digest}.json"
    return cached_json(base, "d2_balanced_crowdhuman", file_name, lambda: convert_crowdhuman(odgt, images))


def convert_crowdhuman(odgt, image_root):
    """The content of a COCO JSON for an ``.odgt`` file. Opens every image's header for its size.

    Boxes without area are left out with a warning where they are few (``check_boxes.tolerated``), an error otherwise.

    Args:
        odgt: annotation file.
        image_root: folder of the images, ``<ID>.jpg``.

    Raises:
        DataError: names file and line of what is not JSON, lacks a field or has a wrong one; missing images.
    """
    records = _read_odgt(odgt)
    content = {"info": {"description": "CrowdHuman converted by d2_balanced, full-body boxes"}, "licenses": [],
               "images": _images(records, image_root, odgt), "annotations": [],
               "categories": [{"id": 1, "name": "person", "supercategory": "person"}]}
    empty, report = [], Report(str(odgt))
    for image_id, (line, _, boxes) in enumerate(records, start=1):
        for box, ignore in boxes:
            if box[2] <= 0 or box[3] <= 0:
                empty.append(f"line {line}, fbox {box}")
                continue
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image_id, "category_id": 1, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": int(ignore)})
    if empty:
        many = len(empty) > tolerated(len(content["annotations"]) + len(empty))
        (report.error if many else report.warn)(f"{len(empty)} box(es) without width or height", empty)
        report.raise_if_errors()
        logging.getLogger(__name__).warning("%s", report)
    return content


def _read_odgt(path):
    """[(line number, image ID, [(box, whether to ignore), ...]), ...]."""
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"annotation file {path} cannot be read: {error}") from None
    records, first_line = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = _parse(line, where)
        if record[0] in first_line:
            raise DataError(f"{where}: the image {record[0]!r} is in line {first_line[record[0]]} already")
        first_line[record[0]] = number
        records.append((number, *record))
    if not records:
        raise DataError(f"{path}: there is no image in this file")
    return records


def _parse(line, where):
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}). Was the file copied completely?") from None
    image_id = _field(record, "ID", str, where)
    boxes = _field(record, "gtboxes", list, where)
    return image_id, [_box(box, f"{where}, gtboxes[{k}]") for k, box in enumerate(boxes)]


def _box(record, where):
    """(fbox, whether it is an ignore region) of one entry of ``gtboxes``."""
    tag, box = _field(record, "tag", str, where), _field(record, "fbox", list, where)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
    if len(box) != 4 or not numbers or not np.isfinite(box).all():
        raise DataError(f"{where}: 'fbox' must be four numbers x, y, width, height, got {box!r}")
    extra = record.get("extra") or {}
    ignore = extra.get("ignore", 0) if isinstance(extra, dict) else 0
    return box, tag != "person" or ignore == 1


def _field(record, name, kind, where):
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
    if name not in record:
        raise DataError(f"{where}: there is no {name!r}; it has {sorted(record)}")
    if not isinstance(record[name], kind):
        raise DataError(f"{where}: {name!r} must be a {kind.__name__}, got {record[name]!r}")
    return record[name]


def _images(records, image_root, odgt):
    """The ``images`` of the COCO JSON, in the order of the lines, with ids from 1."""
    if not os.path.isdir(image_root):
        raise DataError(f"image folder {image_root} (for {odgt}) does not exist")
    present = set(os.listdir(image_root))
    names = [next((i + e for e in _ENDINGS if i + e in present), None) for _, i, _ in records]
    missing = [f"line {line}, {i}{_ENDINGS[0]}" for (line, i, _), name in zip(records, names) if name is None]
    if missing:
        report = Report(str(odgt))
        report.error(f"{len(missing)} of {len(records)} images are not in {image_root}", missing)
        report.raise_if_errors()
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda name: _size(os.path.join(image_root, name)), names))
    return [{"id": k, "file_name": name, "width": width, "height": height}
            for k, (name, (width, height)) in enumerate(zip(names, sizes), start=1)]


def _size(path):
    try:
        return image_facts(path, decode=False).size
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"image file {path} cannot be read: {type(error).__name__}: {error}") from None


@command("python -m d2_balanced.data.crowdhuman")
def main(args=None):
    """The command; returns the exit status; 2 for annotations or images that cannot be used."""
    args = argument_parser().parse_args(args)
    content = convert_crowdhuman(args.odgt, args.images)
    with usage(f"--output {args.output}", OSError, error=OutputError):
        write_json(args.output, content)
    regions = sum(a["iscrowd"] for a in content["annotations"])
    print(f"{args.output}: {len(content['images'])} images, {len(content['annotations']) - regions} persons, "
          f"{regions} ignore regions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
