"""How well a box head classifies its minibatch, for the log."""

from contextlib import contextmanager

import torch
from detectron2.modeling.roi_heads import fast_rcnn
from torch import Tensor

from .log_counts import log_counts

__all__ = ["accuracy_in_one_transfer", "log_accuracy"]


@torch.no_grad()
def log_accuracy(logits: Tensor, gt_classes: Tensor, prefix: str = "fast_rcnn") -> None:
    """Log what detectron2 logs: the accuracy on all RoIs and on the foreground, and the share of the foreground that is
    taken for background. The host waits for the device once or, with others who log (``log_counts.py``), not at all;
    with detectron2's function it waits six times. Nothing is logged without RoIs.

    Args:
        logits: (R, K+1), background last.
        gt_classes: (R,) in [0, K].
        prefix: of the names in the log.
    """
    if not len(gt_classes):
        return  # as detectron2's does, which asks for no storage then
    background, classes = logits.shape[1] - 1, logits.argmax(dim=1)
    foreground = (gt_classes >= 0) & (gt_classes < background)
    correct = classes == gt_classes
    masks = torch.stack([correct, foreground, foreground & correct, foreground & (classes == background)])

    def write(storage, num_correct, num_fg, num_fg_correct, num_missed):
        storage.put_scalar(f"{prefix}/cls_accuracy", num_correct / len(gt_classes))
        if num_fg > 0:
            storage.put_scalar(f"{prefix}/fg_cls_accuracy", num_fg_correct / num_fg)
            storage.put_scalar(f"{prefix}/false_negative", num_missed / num_fg)

    log_counts(masks.sum(dim=1), write)


@contextmanager
def accuracy_in_one_transfer():
    """detectron2's predictors log by :func:`log_accuracy` here. They call a function of their module, so that there is no
    other way to replace it and to leave their losses, to which a later detectron2 may add, as they are."""
    detectron2s = fast_rcnn._log_classification_stats
    fast_rcnn._log_classification_stats = log_accuracy
    try:
        yield
    finally:
        fast_rcnn._log_classification_stats = detectron2s
