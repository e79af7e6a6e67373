"""Pascal VOC 2007 and 2012, evaluated COCO-style.

``voc_{2007_trainval, 2012_trainval, 0712_trainval, 2007_test}_coco`` need the folders ``VOC2007`` and ``VOC2012`` below
``$DETECTRON2_DATASETS`` (or below its ``VOCdevkit``). They are converted to COCO JSON at first use; the file is kept
beside the data in ``coco_format``, or in the cache folder of fvcore ($FVCORE_CACHE) if that is read-only.

Boxes: VOC's corners are 1-based pixel numbers, both inside the box; one that covers the image goes from 1 to its width.
As in detectron2, 1 is subtracted from xmin and ymin only, so that x2 - x1 is the number of pixels.
"Difficult" objects are ordinary ones in training, as in detectron2. In ``voc_2007_test_coco`` they are ``iscrowd``, the
only mark that COCO's evaluation ignores: not finding them costs nothing, finding them neither counts for nor against.
"""

import hashlib
import os
import xml.etree.ElementTree as ElementTree

from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from ..utils.errors import DataError
from .json_cache import cached_json

__all__ = ["VOC_SPLITS", "box_of_object", "ensure_voc_json", "convert_voc", "voc_image_root"]

VERSION = 1
"""Part of the fingerprint that tells whether a converted file is still right."""

VOC_SPLITS = {
    "voc_2007_trainval_coco": ((("VOC2007", "trainval"),), False),
    "voc_2012_trainval_coco": ((("VOC2012", "trainval"),), False),
    "voc_0712_trainval_coco": ((("VOC2007", "trainval"), ("VOC2012", "trainval")), False),
    "voc_2007_test_coco": ((("VOC2007", "test"),), True),
}
"""{name: (((year folder, image list), ...), whether difficult objects are ignored)}."""


def voc_image_root(root):
    """The folder that holds ``VOC2007`` and ``VOC2012``: ``root`` itself or its ``VOCdevkit``."""
    devkit = os.path.join(root, "VOCdevkit")
    has_years = any(os.path.isdir(os.path.join(root, year)) for year in ("VOC2007", "VOC2012"))
    return devkit if os.path.isdir(devkit) and not has_years else root


def ensure_voc_json(name, root):
    """Path of the COCO JSON of a name in :data:`VOC_SPLITS`; converts if there is none or it is out of date.

    Raises:
        DataError: a folder or file of VOC is missing or cannot be read; says which.
    """
    parts, ignore_difficult = VOC_SPLITS[name]
    base = voc_image_root(root)
    fingerprint = _fingerprint(base, parts, ignore_difficult)
    return cached_json(
        base, "d2_balanced_voc", f"{name}-{fingerprint}.json", lambda: convert_voc(base, parts, ignore_difficult))


def convert_voc(base, parts, ignore_difficult):
    """The content of a COCO JSON for image lists of VOC.

    Args:
        base: folder that holds the year folders; the images' ``file_name`` is relative to it.
        parts: ((year folder, image list), ...), for example ``(("VOC2007", "trainval"),)``.
        ignore_difficult: whether difficult objects become ``iscrowd``; otherwise they are ordinary.
    """
    categories = [{"id": k + 1, "name": name, "supercategory": "object"} for k, name in enumerate(CLASS_NAMES)]
    content = {"info": {"description": "Pascal VOC converted by d2_balanced"}, "licenses": [], "images": [],
               "annotations": [], "categories": categories}
    for year, image_list in parts:
        for voc_id in _read_list(base, year, image_list):
            image_id = len(content["images"]) + 1
            image, objects = _read_xml(os.path.join(base, year, "Annotations", voc_id + ".xml"), ignore_difficult)
            file_name = f"{year}/JPEGImages/{voc_id}.jpg"
            content["images"].append({"id": image_id, "file_name": file_name, **image})
            for annotation in objects:
                annotation.update(id=len(content["annotations"]) + 1, image_id=image_id)
                content["annotations"].append(annotation)
    return content


def _list_path(base, year, image_list):
    return os.path.join(base, year, "ImageSets", "Main", image_list + ".txt")


def _read_list(base, year, image_list):
    try:
        with open(_list_path(base, year, image_list)) as f:
            return f.read().split()
    except OSError as error:
        raise DataError(
            f"Pascal VOC is not where it is looked for: {error}. The environment variable DETECTRON2_DATASETS (now "
            f"{os.getenv('DETECTRON2_DATASETS', 'not set: datasets below the working folder')}) must name the folder "
            f"that has {year}/ImageSets, {year}/Annotations and {year}/JPEGImages, or VOCdevkit/{year}.") from None


def _read_xml(path, ignore_difficult):
    """(width and height, annotations without ids) of one image."""
    try:
        tree = ElementTree.parse(path)
        size = {key: int(float(tree.findtext("size/" + key))) for key in ("width", "height")}
        return size, [_annotation(element, ignore_difficult) for element in tree.findall("object")]
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise DataError(f"annotation file {path} is not a readable VOC annotation: {error}") from None


def box_of_object(element):
    """``[x, y, w, h]`` of an ``object`` element; ``TypeError`` or ``ValueError`` where its corners are no numbers."""
    x1, y1, x2, y2 = (float(element.findtext("bndbox/" + key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    x1, y1 = x1 - 1, y1 - 1
    return [x1, y1, x2 - x1, y2 - y1]


def _annotation(element, ignore_difficult):
    name = element.findtext("name")
    if name not in CLASS_NAMES:
        raise ValueError(f"unknown class {name!r}")
    box = box_of_object(element)
    difficult = int(element.findtext("difficult") or 0)
    return {"category_id": CLASS_NAMES.index(name) + 1, "bbox": box, "area": box[2] * box[3],
            "iscrowd": int(ignore_difficult and difficult == 1)}


def _fingerprint(base, parts, ignore_difficult):
    """Changes with the lists, with files added to or removed from Annotations, and with this converter."""
    digest = hashlib.sha256(repr((VERSION, parts, ignore_difficult)).encode())
    for year, image_list in parts:
        digest.update(" ".join(_read_list(base, year, image_list)).encode())
        annotations = os.path.join(base, year, "Annotations")
        digest.update(str(os.stat(annotations).st_mtime_ns if os.path.isdir(annotations) else 0).encode())
    return digest.hexdigest()[:12]
