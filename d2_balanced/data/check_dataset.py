"""Checks a data set before training: what would crash it, or silently spoil it, is reported with image and annotation.

Errors stop a training run; warnings are tolerable and listed. ``python -m d2_balanced.data.check`` is the command.
"""

import difflib
import logging
import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import DataError
from .annotation_table import read_json, table_from_dicts, table_from_json
from .check_boxes import check_boxes, check_sizes, summarize
from .check_images import check_images
from .check_masks import check_masks
from .problems import Report
from .roots import datasets_root

__all__ = ["check_dataset", "check_dicts", "check_registered", "run_checks"]


def check_dataset(json_file, image_root, num_classes=None, *, mask_format=None, images="auto"):
    """Checks a COCO-format data set.

    Args:
        json_file, image_root: annotation file and folder of its images.
        num_classes: the model's number of classes; None: not compared.
        mask_format: "polygon" or "bitmask" if masks are trained (``INPUT.MASK_FORMAT``), else None.
        images: "auto", "headers", "decode" or "none": how much of the image files is read (:mod:`.check_images`).
    Returns:
        :class:`Report`; nothing is raised for a faulty data set.
    """
    report = Report(str(json_file))
    content = read_json(json_file, report)
    if content is None:
        return report
    table = table_from_json(content, str(image_root), report)
    return _check_table(table, report, num_classes, mask_format, images, str(image_root))


def check_dicts(dataset_dicts, class_names, num_classes=None, *, name="data set", mask_format=None, images="auto"):
    """Checks a data set in detectron2's own format (a list of dicts); otherwise like :func:`check_dataset`."""
    report = Report(name)
    table = table_from_dicts(dataset_dicts, class_names)
    rows = table.class_rows < 0
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) whose class is not one of the {len(table.class_names)} classes",
                     table.places(rows))
    return _check_table(table, report, num_classes, mask_format, images, None)


def _check_table(table, report, num_classes, mask_format, images, image_root):
    names = table.class_names
    if num_classes is not None and num_classes != len(names):
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        report.error(f"the model has {num_classes} classes, the data set {len(names)} ({listed})",
                     advice=f"Set MODEL.ROI_HEADS.NUM_CLASSES or MODEL.RETINANET.NUM_CLASSES to {len(names)}.")
    check_sizes(table, report)
    check_boxes(table, report)
    check_masks(table, report, mask_format)
    check_images(table, report, image_root, images)
    summarize(table, report)
    return report


def check_registered(name, num_classes=None, *, mask_format=None, images="auto"):
    """Checks a registered data set, from its COCO JSON if it has one, otherwise from its loaded dicts.

    Raises:
        DataError: there is no such name, or its files are missing.
    """
    _require_name(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get("builds_files"):  # drawn or converted at first use
        DatasetCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and metadata.get("evaluator_type", "coco") in ("coco", "crowdhuman"):
        require_files(name)
        report = check_dataset(json_file, image_root, num_classes, mask_format=mask_format, images=images)
        report.title = f"{name} ({json_file})"
        return report
    dataset_dicts = load_registered(name)
    return check_dicts(dataset_dicts, metadata.get("thing_classes", []), num_classes, name=name,
                       mask_format=mask_format, images=images)


def load_registered(name):
    """``DatasetCatalog.get(name)`` whose errors about missing files say where they are looked for."""
    _require_name(name)
    require_files(name)
    try:
        return DatasetCatalog.get(name)
    except OSError as error:
        raise DataError(f"data set '{name}' cannot be loaded: {error}. {_where_data_sets_are()}") from error


def require_files(name):
    """Raises ``DataError`` naming what is missing and $DETECTRON2_DATASETS if a data set's files are not there."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("builds_files"):
        return
    missing = [path for path in (metadata.get("json_file"), metadata.get("image_root"))
               if path and "://" not in path and not os.path.exists(path)]
    if missing:
        raise DataError(f"data set '{name}' needs {' and '.join(missing)}, which "
                           f"{'does' if len(missing) == 1 else 'do'} not exist. {_where_data_sets_are()}")


def _where_data_sets_are():
    current = os.getenv("DETECTRON2_DATASETS")
    state = f"it is {current!r}" if current else f"it is not set: '{datasets_root()}' below the working folder is used"
    return ("Data sets are looked for in the folder that the environment variable DETECTRON2_DATASETS names when "
            f"Python starts ({state}), for example $DETECTRON2_DATASETS/coco/annotations/instances_train2017.json and "
            "$DETECTRON2_DATASETS/coco/train2017. Own data need no name: see --train-json and --train-images.")


def _require_name(name):
    if name in DatasetCatalog:
        return
    close = difflib.get_close_matches(name, DatasetCatalog.list(), 3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise DataError(f"there is no registered data set '{name}'.{hint}")


def run_checks(names, num_classes=None, *, mask_format=None, images="auto", logger=None):
    """Checks every registered data set in ``names``; logs warnings and summaries, and raises once for all errors.

    Returns:
        the list of reports.
    Raises:
        DataError: its text lists all errors of all data sets.
    """
    logger = logger or logging.getLogger(__name__)
    reports = [check_registered(name, num_classes, mask_format=mask_format, images=images) for name in names]
    faulty = [report for report in reports if report.errors]
    if faulty:
        raise DataError("\n".join(str(report) for report in faulty), faulty[0])
    for report in reports:
        logger.log(logging.WARNING if report.warnings else logging.INFO, "checked %s", report)
    return reports
