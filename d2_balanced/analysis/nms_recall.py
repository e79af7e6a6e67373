"""Which objects are found after NMS, depending on what NMS ranks the candidates by.

Shape shorthand: C: candidates of an image; G: its objects; T: matching IoUs.
"""

from __future__ import annotations

import numpy as np
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, pairwise_iou

__all__ = ["MATCHING_IOUS", "NmsRecall", "best_ious", "kept_by_nms"]

MATCHING_IOUS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""IoUs that a box must have with an object to find it: 0.5 to 0.95."""


def kept_by_nms(found, key, nms_thresh):
    """Indices of the candidates that per-class NMS keeps. The candidate with the highest key comes first."""
    return batched_nms(found.boxes, found.keys[key], found.classes, nms_thresh)


class NmsRecall:
    """Recall after NMS at several matching IoUs, once for every key that NMS can rank candidates by.

    An object counts as found at a matching IoU if a kept box of its class overlaps it by at least that IoU.

    Args:
        nms_thresh: the detector's NMS threshold.
        topk: the largest number of detections that the detector reports for an image (below 0: all), those
            with the highest keys.
    """

    def __init__(self, nms_thresh, topk):
        self.nms_thresh, self.topk = nms_thresh, topk
        self.objects = self.images = 0
        self._found = {}  # {(key, limited to topk): objects found (T,)}
        self._kept = {}  # {(key, limited to topk): boxes}

    def add(self, found, gt_boxes, gt_classes):
        """Count an image: a :class:`Found` and its objects, (G, 4) in the same pixels and (G,)."""
        self.images += 1
        self.objects += len(gt_boxes)
        for key in found.keys:
            kept = kept_by_nms(found, key, self.nms_thresh)
            for limited, rows in ((False, kept), (True, kept[: self.topk] if self.topk >= 0 else kept)):
                best = best_ious(found.boxes[rows], found.classes[rows], gt_boxes, gt_classes)
                hits = (best[:, None] >= best.new_tensor(MATCHING_IOUS)).sum(dim=0).cpu().numpy()
                self._found[key, limited] = self._found.get((key, limited), 0) + hits
                self._kept[key, limited] = self._kept.get((key, limited), 0) + len(rows)

    def summary(self, limited):
        """``{key: {"recall": [T numbers], "mean": .., "boxes_per_image": ..}}``; NaN without objects.

        Args:
            limited: of the ``topk`` boxes an image, instead of all that NMS keeps.
        """
        result = {}
        for (key, is_limited), hits in self._found.items():
            if is_limited == limited:
                recall = hits / self.objects if self.objects else np.full(len(MATCHING_IOUS), np.nan)
                boxes = self._kept[key, limited] / self.images
                result[key] = {"recall": recall.tolist(), "mean": float(recall.mean()), "boxes_per_image": boxes}
        return result


def best_ious(boxes, classes, gt_boxes, gt_classes):
    """IoU (G,) of every object with the box of its class that fits it best; 0 where there is none."""
    if not len(boxes):
        return gt_boxes.new_zeros(len(gt_boxes))
    same = gt_classes[:, None] == classes[None]
    return (pairwise_iou(Boxes(gt_boxes), Boxes(boxes)) * same).amax(dim=1)
