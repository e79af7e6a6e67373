"""Boxes and objects paired as COCO does at one IoU threshold, and the kind of every box that has no partner."""

from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_util

__all__ = ["BACKGROUND", "IOU", "KINDS", "Matches", "match"]

IOU, BACKGROUND = 0.5, 0.1
"""A box with an IoU of ``IOU`` has found an object of its class; one of ``BACKGROUND`` or less overlaps nothing."""

KINDS = {
    "location": "right class, wrong place: IoU from 0.1 to 0.5 with an object of its class",
    "other class": "right place, wrong class: IoU 0.5 or more with an object of another class",
    "duplicate": "an object of its class that a box with a higher score has found",
    "background": "nothing there: IoU 0.1 or less with every object",
    "both": "IoU from 0.1 to 0.5 with an object of another class only",
}  # fmt: skip
_NAMES = tuple(KINDS)
_FOUND, _IGNORED = -1, -2


class Matches(NamedTuple):
    """All detections (D,) and objects (O,) of a data set; crowds are no objects, and what lies in them is left out.

    Attributes:
        image, label: internal image id and class of every detection, by descending score within an image.
        score, box: (D,) and (D, 4) as x, y, width, height in pixels.
        kind: -1 for a detection that has found an object, else the index in ``KINDS`` of what is wrong with it.
        target: the object that it has found; of one that has not, the object that it overlaps most, of the class that
            its kind is about; -1: none.
        object_image, object_label, object_box, object_area, object_id: (O,); the id is the data set's.
        found_by: (O,) the detection that has found the object, -1: none.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    box: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    object_image: np.ndarray
    object_label: np.ndarray
    object_box: np.ndarray
    object_area: np.ndarray
    object_id: list
    found_by: np.ndarray

    def kept(self, score):
        """(D,) whether a detection counts at this least score."""
        return self.score >= score

    def found(self, score):
        """(O,) whether an object is found by a detection of this score or more."""
        scores = np.append(self.score, -np.inf)[self.found_by]
        return scores >= score


def match(ground_truth, detections):
    """The :class:`Matches` of detections with internal ids (``internal_detections``); nothing gives empty arrays.

    As in COCO: by descending score, each box takes the object of its class that it overlaps most and that is free, with
    IoU 0.5 or more; else it may lie in a crowd of its class, which it is then ignored for. The kinds are those of TIDE
    (Bolya et al., 2020, section 2.2), in its order.
    """
    objects = [a for a in ground_truth.annotations if not a["iscrowd"]]
    crowds = [a for a in ground_truth.annotations if a["iscrowd"]]
    objects_of, crowds_of, detections_of = (_by_image(records) for records in (objects, crowds, detections))
    order, kinds, targets = [], [], []
    found_by = np.full(len(objects), -1)
    for image in sorted(detections_of):
        scores = np.array([detections[d]["score"] for d in detections_of[image]], dtype=float)
        own = [detections_of[image][k] for k in np.argsort(-scores, kind="stable")]
        near = objects_of.get(image, [])
        found, in_crowd, ious, same = _pair(detections, own, objects, near, [crowds[c] for c in crowds_of.get(image, ())])
        kind, target = _kinds(found, in_crowd, ious, same)
        kept = kind != _IGNORED
        for row in np.flatnonzero(found >= 0):
            found_by[near[found[row]]] = len(order) + kept[:row].sum()
        order += [own[k] for k in np.flatnonzero(kept)]
        kinds += kind[kept].tolist()
        targets += [near[t] if t >= 0 else -1 for t in target[kept]]
    return Matches(
        *_columns([detections[d] for d in order], "image_id", "category_id"),
        np.array([detections[d]["score"] for d in order], dtype=float), _boxes([detections[d] for d in order]),
        np.array(kinds, dtype=int), np.array(targets, dtype=int),
        *_columns(objects, "image_id", "category_id"), _boxes(objects),
        np.array([a["area"] for a in objects], dtype=float), [a["source_id"] for a in objects], found_by,
    )  # fmt: skip


def _by_image(records):
    rows = {}
    for row, record in enumerate(records):
        rows.setdefault(record["image_id"], []).append(row)
    return rows


def _columns(records, *keys):
    return (np.array([record[key] for record in records], dtype=int) for key in keys)


def _boxes(records):
    return np.array([record["bbox"] for record in records], dtype=float).reshape(-1, 4)


def _ious(boxes, others, crowd):
    """(N, M) overlaps; of crowds, as shares of the box itself."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(mask_util.iou(boxes, others, [int(crowd)] * len(others)))


def _pair(detections, own, objects, near, crowds):
    """``(found, in_crowd, ious, same)`` of the detections ``own`` of one image with its objects ``near``."""
    boxes, (labels,) = _boxes([detections[d] for d in own]), _columns([detections[d] for d in own], "category_id")
    (near_labels,) = _columns([objects[o] for o in near], "category_id")
    ious = _ious(boxes, _boxes([objects[o] for o in near]), False)
    same = labels[:, None] == near_labels[None]
    found = np.full(len(own), -1)
    free = np.where(same & (ious >= min(IOU, 1 - 1e-10)), ious, -1.0)
    for row in np.flatnonzero((free >= 0).any(axis=1)):
        best = free.shape[1] - 1 - np.argmax(free[row, ::-1])  # of equal ones COCO takes the last
        if free[row, best] >= 0:
            found[row] = best
            free[:, best] = -1
    crowd_ious = _ious(boxes, _boxes(crowds), True)
    (crowd_labels,) = _columns(crowds, "category_id")
    in_crowd = ((crowd_ious >= IOU) & (labels[:, None] == crowd_labels[None])).any(axis=1)
    return found, in_crowd, ious, same


def _kinds(found, in_crowd, ious, same):
    """``(kind, target)`` of every detection of an image; kind ``_IGNORED`` where it lies in a crowd."""
    kind, target = np.full(len(found), _NAMES.index("background")), np.full(len(found), -1)
    if ious.shape[1]:
        own, other = np.where(same, ious, 0.0), np.where(same, 0.0, ious)
        taken = np.zeros(ious.shape[1], dtype=bool)
        taken[found[found >= 0]] = True
        used = np.where(taken[None], own, 0.0)
        cases = {  # the first that holds
            "location": (own, (own.max(1) >= BACKGROUND) & (own.max(1) <= IOU)),
            "other class": (other, other.max(1) >= IOU),
            "duplicate": (used, used.max(1) >= IOU),
            "background": (ious, ious.max(1) <= BACKGROUND),
            "both": (ious, np.ones(len(found), dtype=bool)),
        }
        for name, (overlaps, holds) in reversed(list(cases.items())):
            kind[holds] = _NAMES.index(name)
            target[holds] = -1 if name == "background" else overlaps[holds].argmax(1)
    kind[in_crowd & (found < 0)] = _IGNORED
    return np.where(found >= 0, _FOUND, kind), np.where(found >= 0, found, target)
