"""The two libraries that the page asks, where they are installed: ``supervision`` and ``tidecv``."""

import warnings

import numpy as np

from ...utils.extras import import_extra

__all__ = ["EXTRA", "TIDE_KINDS", "confusion_matrix", "tide_errors"]

EXTRA = "errors"
TIDE_KINDS = {"Loc": "location", "Cls": "other class", "Dupe": "duplicate", "Bkg": "background", "Both": "both",
              "Miss": "missed, nothing near"}  # fmt: skip


def _library(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # supervision's, that OpenCV is not there
        return import_extra(name, EXTRA, "It")


def confusion_matrix(matches, ground_truth, score):
    """(K + 1, K + 1) counts of ``supervision``: rows are classes of objects, columns of detections from ``score`` on.

    The last row counts detections without an object, the last column objects without a detection. Pairs have IoU 0.5 or
    more, whatever their classes; crowds and what lies in them are left out. ``InstallError`` without the library.
    """
    supervision = _library("supervision")
    kept = matches.kept(score)
    predictions = _by_image(supervision, ground_truth, matches.image[kept], matches.box[kept], matches.label[kept],
                            matches.score[kept])  # fmt: skip
    targets = _by_image(supervision, ground_truth, matches.object_image, matches.object_box, matches.object_label)
    classes = [str(k) for k in range(len(ground_truth.class_names))]
    found = supervision.ConfusionMatrix.from_detections(
        predictions=predictions, targets=targets, classes=classes, conf_threshold=0.0, iou_threshold=0.5
    )
    return np.asarray(found.matrix).astype(int)


def _by_image(supervision, ground_truth, image, box, label, score=None):
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    confidence = np.ones(len(image)) if score is None else score
    order = np.argsort(image, kind="stable")
    ends = np.cumsum(np.bincount(image, minlength=len(ground_truth.images)))
    return [
        supervision.Detections(xyxy=corners[rows], confidence=confidence[rows], class_id=label[rows])
        for rows in np.split(order, ends[:-1])
    ]


def tide_errors(ground_truth, detections):
    """``{kind: points of AP50 that its errors cost}`` of ``tidecv`` (TIDE, section 2.3), and its AP50 as "AP50".

    Also "false positives" and "misses": all of them together. Detections of classes without objects are left out: COCO's
    mean has not these classes, the library would take their AP as 0. ``None`` where there are no detections or no objects,
    which the library does not take; ``InstallError`` without it.
    """
    known = {a["category_id"] for a in ground_truth.annotations if not a["iscrowd"]}
    detections = [d for d in detections if d["category_id"] in known]
    if not detections:
        return None
    tidecv = _library("tidecv")
    truth, found = tidecv.Data("objects"), tidecv.Data("detections")
    for data in (truth, found):
        for image in ground_truth.images:
            data.add_image(image["id"], str(image["id"]))
        for k in range(len(ground_truth.class_names)):
            data.add_class(k, str(k))
    for annotation in ground_truth.annotations:
        add = truth.add_ignore_region if annotation["iscrowd"] else truth.add_ground_truth
        add(annotation["image_id"], annotation["category_id"], annotation["bbox"])
    for each in detections:
        found.add_detection(each["image_id"], each["category_id"], each["score"], each["bbox"])
    tide = tidecv.TIDE()
    run = tide.evaluate(truth, found, mode=tidecv.TIDE.BOX)
    (main,), (special,) = tide.get_main_errors().values(), tide.get_special_errors().values()
    costs = {TIDE_KINDS[name]: float(main[name]) for name in TIDE_KINDS}
    return {**costs, "false positives": float(special["FalsePos"]), "misses": float(special["FalseNeg"]),
            "AP50": float(run.ap)}  # fmt: skip
