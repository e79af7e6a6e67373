"""Checks a data set before training: what would crash it, or silently spoil it, is reported with image and annotation.

Errors stop a training run; warnings are tolerable and listed. ``python -m d2_balanced.data.check`` is the command.
"""

import logging
import os

from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog

from ..utils.errors import DataError
from .annotation_table import table_from_dicts
from .check_boxes import check_boxes, check_sizes
from .check_counts import summarize
from .check_images import check_images
from .check_masks import check_mask_format, check_masks
from .check_values import check_values
from .class_names import distinct_names
from .coco_file import read_coco
from .identity import identity_of_file
from .input_size import check_input_size, input_size_of
from .mapper import BalancedMapper
from .problems import Report
from .repeat_factors import RepeatFactors, table_as_dicts
from .registered import load_registered, require_files, require_name

__all__ = ["check_dataset", "check_dicts", "check_registered", "conversion_report", "raise_or_warn", "run_checks"]


def check_dataset(json_file, image_root, num_classes=None, *, name=None, **settings):
    """Checks a COCO-format data set.

    Args:
        json_file, image_root: annotation file and folder of its images.
        num_classes: the model's number of classes; None: not compared.
        name: what the report calls the data set.
        settings: see :func:`_check_table`.
    Returns:
        :class:`Report`; nothing is raised for a faulty data set.
    """
    report = Report(name or str(json_file))
    found = read_coco(str(json_file), str(image_root), report)
    if found is None:
        return report
    faultless = not report.errors
    _check_table(found[1], report, num_classes, image_root=str(image_root), **settings)
    if faultless:
        report.identity = identity_of_file(json_file, image_root, found[1])
    return report


def check_dicts(dataset_dicts, class_names, num_classes=None, *, name="data set", **settings):
    """Checks a data set in detectron2's own format (a list of dicts); otherwise like :func:`check_dataset`."""
    report = Report(name)
    table = table_from_dicts(dataset_dicts, class_names)
    rows = table.class_rows < 0
    if rows.any():
        report.error(f"{int(rows.sum())} annotation(s) whose class is not one of the {len(table.class_names)} classes",
                     table.places(rows))
    check_sizes(table, report)
    check_boxes(table, report)
    check_masks(table, report)
    return _check_table(table, report, num_classes, **settings)


def _check_table(table, report, num_classes, *, mask_format=None, images="auto", image_root=None, mapper=None,
                 input_size=None, size_is_known=False, crowds_are_meant=False, trained=False, repeat_threshold=0.0):
    """The checks beyond those of reading.

    Args:
        mask_format: "polygon" or "bitmask" if masks are trained (``INPUT.MASK_FORMAT``), else None.
        images: "auto", "headers", "decode" or "none": how much of the image files is read (:mod:`.check_images`).
        mapper: the data mapper of training or evaluation: it tells how images are opened and resized.
        input_size, size_is_known: the latter where there is no mapper (:class:`InputSize`), and whether it is a guess.
        crowds_are_meant: see :func:`check_values`.
        trained: whether it is a training set, which needs annotations.
        repeat_threshold: above 0, the summary tells what repeat-factor sampling would give each class.
    """
    names, report.image_paths = table.class_names, table.paths
    if num_classes is not None and num_classes != len(names):
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        report.error(f"the model has {num_classes} classes, the data set {len(names)} ({listed})",
                     advice=f"Set MODEL.ROI_HEADS.NUM_CLASSES or MODEL.RETINANET.NUM_CLASSES to {len(names)}.")
    if trained and not table.annotated:
        report.error("there is no list of 'annotations', so there is nothing to train on",
                     advice="It is the file of a test set, or the key is called otherwise.")
    by_detectron2 = isinstance(mapper, DatasetMapper) and not isinstance(mapper, BalancedMapper)
    check_mask_format(table, report, mask_format, may_lack=table.records is not None and not by_detectron2)
    check_values(table, report, crowds_are_meant)
    check_input_size(table, report, input_size_of(mapper) or input_size, size_is_known or mapper is not None)
    check_images(table, report, image_root, images, own_reading=not by_detectron2)
    summarize(table, report)
    if repeat_threshold and not report.errors:
        repeats = RepeatFactors(table_as_dicts(table), repeat_threshold)
        report.summary["sampling"] = repeats.describe(distinct_names(names, table.class_ids)).replace("\n", "\n    ")
    return report


def check_registered(name, num_classes=None, **settings):
    """Checks a registered data set, from its COCO JSON if it has one, otherwise from its loaded dicts.

    Raises:
        DataError: there is no such name, or its files are missing.
    """
    require_name(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get("builds_files"):  # drawn or converted at first use, crowds by the data set's own rules
        DatasetCatalog.get(name)
        settings["crowds_are_meant"] = True
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and metadata.get("evaluator_type", "coco") in ("coco", "crowdhuman"):
        require_files(name)
        report = check_dataset(json_file, image_root, num_classes, name=f"{name} ({json_file})", **settings)
        if report.repairs and not metadata.get("read_by_d2_balanced"):
            report.error("the annotation file has to be read otherwise than it is written "
                         f"({', '.join(report.repairs)}), and the function that is registered for this name does not",
                         advice="Give the data set by its paths (--train-json, --train-images, ...), or register it "
                         "with d2_balanced.data.coco_paths.register_by_path.")
        return report
    dataset_dicts = load_registered(name)
    return check_dicts(dataset_dicts, metadata.get("thing_classes", []), num_classes, name=name, **settings)


def run_checks(names, num_classes=None, *, trained=(), matched=(), mappers=None, strict=False, logger=None, **settings):
    """Checks every registered data set in ``names``; logs warnings and summaries, and raises once for all errors.

    Args:
        trained: those of the names that are training sets.
        matched: those whose classes are matched to the model's by name, so that their number may be another one.
        mappers: {name: data mapper}, see :func:`_check_table`; a name may lack.
        strict: whether warnings are errors (``DATASETS.STRICT``).
        settings: see :func:`_check_table`.
    Returns:
        the list of reports.
    Raises:
        DataError: its text lists all errors of all data sets.
    """
    logger = logger or logging.getLogger(__name__)
    reports = []
    for name in names:
        mapper = (mappers or {}).get(name)
        number = None if name in matched else num_classes
        reports.append(check_registered(name, number, trained=name in trained, mapper=mapper, **settings))
    _warn_of_shared({name: report for name, report in zip(names, reports) if name in trained}, dict(zip(names, reports)))
    faulty = [report for report in reports if report.errors or (strict and report.warnings)]
    if len(faulty) > 1:
        raise DataError("\n".join(str(report) for report in faulty), faulty[0])
    for report in faulty:
        report.raise_if_errors(strict)
    for report in reports:
        logger.log(logging.WARNING if report.warnings else logging.INFO, "checked %s", report)
    return reports


def raise_or_warn(left_out, *, strict, logger):
    """Log what was left out while data were converted, or with ``strict`` raise ``DataError`` for it."""
    for line in left_out:
        logger.warning("%s", line)
    conversion_report("the folder of --data", left_out).raise_if_errors(strict)


def conversion_report(title, left_out):
    """What was left out while data were converted, as the warnings of a report."""
    report = Report(title)
    for line in left_out:
        report.warn(line)
    return report


def _warn_of_shared(trained, reports):
    """Say which evaluated images are trained on; both are ``{name: report}``, the second with the first in it."""
    training = {os.path.abspath(path) for report in trained.values() for path in report.image_paths}
    for name in reports.keys() - trained.keys():
        paths = reports[name].image_paths
        shared = [path for path in paths if os.path.abspath(path) in training]
        if shared:
            reports[name].warn(f"{len(shared)} of {len(paths)} image(s) are images of training, too", shared,
                               "What is measured on them says nothing about other images.")
