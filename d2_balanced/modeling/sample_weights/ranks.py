"""Places of samples in order of a value, within groups, for all groups at once. Nothing here waits for the device.

Shape shorthand: N: samples.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["hierarchical_local_rank", "local_rank", "unsuppressed"]


def local_rank(values: Tensor, groups: Tensor) -> Tensor:
    """(N,) int64: place of each sample in its group, 0 that of the highest value; of equals the earlier comes first.

    Args:
        values: (N,).
        groups: (N,) int64, the group of each.
    """
    order = values.sort(descending=True, stable=True)[1]
    order = order[groups[order].sort(stable=True)[1]]
    grouped = groups[order]
    places = torch.arange(len(order), device=order.device) - torch.searchsorted(grouped, grouped)
    return torch.empty_like(order).scatter_(0, order, places)


def hierarchical_local_rank(values: Tensor, groups: Tensor, classes: Tensor) -> Tensor:
    """(N,) int64: hierarchical local rank of each sample in its class (Cao et al. 2020, fig. 3).

    The first of every group come before all second ones, these before all third ones, and so on; samples of one place
    are in order of their values.

    Args:
        values, groups: as for :func:`local_rank`; here the groups are objects, or clusters.
        classes: (N,) int64.
    """
    places = local_rank(values, groups)
    by_value = values.sort(descending=True, stable=True)[1]
    order = by_value[places[by_value].sort(stable=True)[1]]
    earliest_first = torch.empty_like(order).scatter_(0, order, -torch.arange(len(order), device=order.device))
    return local_rank(earliest_first, classes)


def unsuppressed(boxes: Tensor, scores: Tensor, groups: Tensor, iou_thresh: float) -> Tensor:
    """(N,) bool: what NMS within each group keeps; torchvision's, in one call for all groups.

    Args:
        boxes: (N, 4) XYXY pixels.
        scores: (N,).
        groups: (N,) int64, at least 0: boxes of other groups are suppressed as if they were far away.
        iou_thresh: a box is suppressed by one of a higher score, if their IoU is above this.
    """
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if len(boxes) == 0:
        return keep
    boxes = boxes.double()  # exact in spite of the distance
    span = boxes.amax() - boxes.amin() + 1
    rows = nms(boxes + (groups * span)[:, None], scores.double(), iou_thresh)
    return keep.index_fill_(0, rows, True)
