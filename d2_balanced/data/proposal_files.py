"""Precomputed proposals (``DATASETS.PROPOSAL_FILES_TRAIN``, ``PROPOSAL_FILES_TEST``) in detectron2's file format.

A proposal network writes such a file (``inference/<data set>/box_proposals.pkl``) when it is evaluated on a data set;
Fast R-CNN trains on it. ``python -m d2_balanced.data.proposal_files FILE --name DATA_SET`` says whether the two fit.
"""

import os
import pickle
import sys
import tempfile

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..arguments.proposals import argument_parser
from ..utils.command import command
from ..utils.errors import DataError
from ..utils.safe_load import load_pickled_arrays
from .problems import Report
from .registered import load_registered

__all__ = ["check_proposal_files", "check_proposals", "is_missing", "main", "read_proposals", "write_proposals"]

_OLD_KEYS = {"indexes": "ids", "scores": "objectness_logits"}  # Detectron's files


def write_proposals(path, image_ids, boxes, objectness_logits):
    """Writes a proposal file.

    Args:
        image_ids: one an image, as in the data set.
        boxes: per image, array (N, 4) of x1, y1, x2, y2 in pixels of the image as it is on disk; N may be 0.
        objectness_logits: per image, array (N,); higher is better, any scale.
    Raises:
        ValueError: lists or arrays whose lengths do not fit.
    """
    boxes = [np.asarray(b, dtype=np.float32).reshape(-1, 4) for b in boxes]
    logits = [np.asarray(s, dtype=np.float32).reshape(-1) for s in objectness_logits]
    if not len(image_ids) == len(boxes) == len(logits):
        raise ValueError(f"write_proposals: {len(image_ids)} image ids, {len(boxes)} boxes, {len(logits)} logits")
    for image_id, b, s in zip(image_ids, boxes, logits):
        if len(b) != len(s):
            raise ValueError(f"write_proposals: image {image_id} has {len(b)} boxes and {len(s)} logits")
    content = {"ids": list(image_ids), "boxes": boxes, "objectness_logits": logits,
               "bbox_mode": int(BoxMode.XYXY_ABS)}
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".unfinished")
    with os.fdopen(handle, "wb") as f:
        pickle.dump(content, f, protocol=4)
    os.replace(temporary, path)


def is_missing(path):
    """Whether a file of proposals is certainly not there; what has to be fetched (``detectron2://..``) may be."""
    return "://" not in path and not os.path.isfile(path)


def read_proposals(path):
    """``{image id as text: (boxes (N, 4) x1 y1 x2 y2, objectness_logits (N,))}`` of a file; runs no code in it.

    ``path`` may be anything that detectron2 can open, such as its own ``detectron2://..``, which it fetches once.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        with PathManager.open(path, "rb") as f:
            content = load_pickled_arrays(f)
        content = {_OLD_KEYS.get(key, key): value for key, value in content.items()}
        mode = BoxMode(content.get("bbox_mode", BoxMode.XYXY_ABS))
        found = {}
        for image_id, boxes, logits in zip(content["ids"], content["boxes"], content["objectness_logits"]):
            boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
            found[str(image_id)] = np.asarray(BoxMode.convert(boxes, mode, BoxMode.XYXY_ABS)), np.asarray(logits)
        return found
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path} is no readable proposal file: {type(error).__name__}: {error}") from None


def check_proposals(path, dataset_dicts):
    """A :class:`Report`: does a proposal file have sound boxes, inside the image, for every image of a data set?"""
    report = Report(str(path))
    proposals = read_proposals(path)
    missing = [record for record in dataset_dicts if str(record["image_id"]) not in proposals]
    if missing:
        report.error(f"{len(missing)} of {len(dataset_dicts)} image(s) have no entry", [_place(r) for r in missing],
                     "Compute the proposals on this very data set.")
    numbers, faulty, outside = [], [], []
    for record in dataset_dicts:
        boxes, logits = proposals.get(str(record["image_id"]), (np.zeros((0, 4)), np.zeros(0)))
        numbers.append(len(boxes))
        limits = np.array([record["width"], record["height"]] * 2) + 1
        if len(boxes) != len(logits) or not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            faulty.append(_place(record))
        elif (boxes > limits).any():
            outside.append(_place(record))
    if faulty:
        report.error(f"{len(faulty)} image(s) with broken boxes (not finite, x2 < x1, or not one logit a box)", faulty)
    if outside:
        report.error(f"{len(outside)} image(s) with boxes outside of the image", outside,
                     "Boxes are in pixels of the image on disk, not of the resized one.")
    if numbers:
        report.summary["proposals_an_image"] = {"min": min(numbers), "mean": round(float(np.mean(numbers)), 1),
                                                "max": max(numbers)}
    return report


def check_proposal_files(names, files, checked):
    """Checks the files of the data sets ``names`` that are among ``checked``.

    Raises:
        DataError: not one file a data set, a file that cannot be read, or (listed together) what does not fit.
    """
    if len(names) != len(files):
        raise DataError(f"{len(names)} data set(s) {', '.join(names)} and {len(files)} file(s) of precomputed proposals "
                           f"({', '.join(files) or 'none'}): give one for each, in the same order "
                           "(DATASETS.PROPOSAL_FILES_TRAIN, _TEST; dataloader.{train,test}.dataset.proposal_files).")
    reports = [check_proposals(path, load_registered(name)) for name, path in zip(names, files) if name in checked]
    faulty = [report for report in reports if report.errors]
    if faulty:
        raise DataError("\n".join(str(report) for report in faulty), faulty[0])


def _place(record):
    return f"image {record['image_id']} ({os.path.basename(record['file_name'])})"


@command("python -m d2_balanced.data.proposal_files")
def main(args=None):
    """The command; returns the exit status."""
    args = argument_parser().parse_args(args)
    report = check_proposals(args.file, load_registered(args.name))
    print(report)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
