"""The two libraries that can do COCO's matching and accumulation, behind one function.

pycocotools is the official one; faster-coco-eval does the same in C++ (the tests hold it to equal arrays).
Both get the same internal ids (ground_truth.py), and neither reads a file or prints.
"""

import contextlib
import importlib
import io

import pycocotools.mask as mask_util

from ..utils.errors import InstallError

__all__ = ["BACKENDS", "match_and_accumulate", "resolve_backend"]

BACKENDS = ("auto", "faster-coco-eval", "pycocotools")


def resolve_backend(backend, owner="match_and_accumulate"):
    """"auto" -> faster-coco-eval where it is installed, pycocotools otherwise. ValueError for an unknown name,
    InstallError for one that is not installed."""
    if backend not in BACKENDS:
        raise ValueError(f"{owner}: backend must be one of {BACKENDS}, got {backend!r}.")
    installed = backend != "pycocotools" and _importable("faster_coco_eval")
    if backend == "faster-coco-eval" and not installed:
        raise InstallError(f"{owner}: backend 'faster-coco-eval' is not installed: pip install faster-coco-eval.")
    if backend == "auto":
        return "faster-coco-eval" if installed else "pycocotools"
    return backend


def match_and_accumulate(ground_truth, detections, task, max_dets, backend, image_indices=None, use_categories=True):
    """Matches detections with objects and accumulates precision and recall.

    Args:
        ground_truth: :class:`GroundTruth`.
        detections: list of ``{image_id, category_id, score, bbox xywh | segmentation RLE}`` with internal ids.
        task: "bbox" or "segm".
        max_dets: ascending list of limits on the detections an image (and class); the last one is the cap of AP.
        image_indices: internal ids of the images to evaluate; None: all.
        use_categories: False takes all classes as one.

    Returns:
        (precision, recall): float64 arrays (T, R, K, A, M) and (T, K, A, M): IoU thresholds .50 .. .95, 101 recall
        points, classes (1 if not ``use_categories``), area ranges (all, small, medium, large), ``max_dets``; -1 where
        there is no ground truth.
    """
    coco_class, eval_class = _library(backend)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        if (backend, task) not in ground_truth.indexed:
            annotations = [a for a in ground_truth.annotations if task == "bbox" or "segmentation" in a]
            ground_truth.indexed[backend, task] = _indexed(coco_class, ground_truth, annotations, task)
        detected = _indexed(coco_class, ground_truth, _with_areas(detections, task), task)
        coco_eval = eval_class(ground_truth.indexed[backend, task], detected, task)
        coco_eval.params.maxDets = list(max_dets)
        coco_eval.params.useCats = int(use_categories)
        if image_indices is not None:
            coco_eval.params.imgIds = list(image_indices)
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval.eval["precision"], coco_eval.eval["recall"]


def _importable(module):
    try:
        importlib.import_module(module)
    except ImportError:  # not installed, or built for another NumPy or Python
        return False
    return True


def _library(backend):
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    return COCO, COCOeval


def _indexed(coco_class, ground_truth, annotations, task):
    """A COCO object with copies of the annotations, for the libraries write into them."""
    coco = coco_class()
    unused = "segmentation" if task == "bbox" else None
    coco.dataset = {
        "images": [dict(image) for image in ground_truth.images],
        "categories": [{"id": k, "name": name} for k, name in enumerate(ground_truth.class_names)],
        "annotations": [{k: v for k, v in annotation.items() if k != unused} for annotation in annotations],
    }
    coco.createIndex()
    return coco


def _with_areas(detections, task):
    """Detections as annotations: ids from 1, and the area that decides their size range (the mask's in "segm")."""
    annotations = []
    for number, detection in enumerate(detections, start=1):
        if task == "segm":
            area = float(mask_util.area(detection["segmentation"]))
        else:
            area = detection["bbox"][2] * detection["bbox"][3]
        annotations.append({**detection, "id": number, "area": area, "iscrowd": 0})
    return annotations
