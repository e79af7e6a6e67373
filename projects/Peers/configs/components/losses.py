"""The losses of Peers on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.box_losses import BoundedIoU, CIoU, DIoU, EIoU, GHMR, GIoU, IoULoss, KLLoss
from d2_balanced.modeling.cls_losses import ClassBalanced, EQLv2, FocalLoss, GHMC, QualityFocal, SeesawLoss, Varifocal


def _predictors(model):
    """The predictors of a two-stage detector; each stage of a cascade has its own."""
    predictors = model.roi_heads.box_predictor
    return predictors if isinstance(predictors, ListConfig) else [predictors]


def _cls_loss(model, loss, **arguments):
    for predictor in _predictors(model):
        predictor.cls_loss = L(loss)(**arguments)


def _box_loss(model, loss, weight=None, **arguments):
    for predictor in _predictors(model):
        predictor.box_loss = L(loss)(**arguments)
        if weight is not None:
            predictor.loss_weight = {"loss_box_reg": weight}


def focal_loss(model):
    """Focal loss of the softmax; the paper's mean is over positives, which are a quarter of the RoIs."""
    _cls_loss(model, FocalLoss, gamma=2.0, loss_weight=4.0)


def ghm_c(model):
    """GHM-C of the softmax."""
    _cls_loss(model, GHMC, bins=30, momentum=0.75)


def ghm_c_retinanet(model):
    """GHM-C of sigmoids in RetinaNet."""
    model.cls_loss = L(GHMC)(bins=30, momentum=0.75, form="sigmoid")


def seesaw(model):
    """Seesaw loss, with the samples of each class counted in training."""
    _cls_loss(model, SeesawLoss, p=0.8, q=2.0)


def eqlv2(model):
    """Equalization loss v2: sigmoids, and a classifier of the background."""
    _cls_loss(model, EQLv2, gamma=12.0, mu=0.8, alpha=4.0)


def class_balanced(model):
    """Cross entropy weighted by the effective number of the class's samples, which are counted in training."""
    _cls_loss(model, ClassBalanced, beta=0.999)


def quality_focal(model):
    """Quality focal loss: a score is the IoU that the box will have."""
    _cls_loss(model, QualityFocal, beta=2.0, loss_weight=4.0)


def varifocal(model):
    """Varifocal loss."""
    _cls_loss(model, Varifocal, alpha=0.75, gamma=2.0, loss_weight=4.0)


def varifocal_retinanet(model):
    """Varifocal loss in RetinaNet."""
    model.cls_loss = L(Varifocal)(alpha=0.75, gamma=2.0)


def iou_loss(model):
    """-ln(IoU) of decoded boxes."""
    _box_loss(model, IoULoss, weight=10.0)


def bounded_iou(model):
    """Bounded IoU of decoded boxes."""
    _box_loss(model, BoundedIoU, weight=10.0)


def giou(model):
    """1 - GIoU of decoded boxes."""
    _box_loss(model, GIoU, weight=10.0)


def diou(model):
    """1 - DIoU of decoded boxes."""
    _box_loss(model, DIoU, weight=10.0)


def ciou(model):
    """1 - CIoU of decoded boxes."""
    _box_loss(model, CIoU, weight=10.0)


def eiou(model):
    """1 - EIoU of decoded boxes."""
    _box_loss(model, EIoU, weight=10.0)


def ghm_r(model):
    """GHM-R, with the release's mu (0.02 of a box) and weight (10, of the mean of four) in the units of an R-CNN."""
    _box_loss(model, GHMR, weight=2.5, mu=0.2, bins=10, momentum=0.7)


def kl_loss(model):
    """KL loss; the heads then predict variances, too."""
    _box_loss(model, KLLoss, coordinates="corners")
