"""The sample weights of Peers on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L

from d2_balanced.modeling.sample_weights import OHEM, PISA, ClassBalancedRoIs, IoUBalanced, SamplingFree


def ohem(model):
    """OHEM: of all proposals the hardest 128 of every image."""
    model.roi_heads.sample_weights = L(OHEM)(num_per_image=128)


def ohem_fraction(model):
    """OHEM as mmdetection has it: by the classification loss, positives and negatives apart."""
    model.roi_heads.sample_weights = L(OHEM)(fraction=True, losses="cls", nms_thresh=1.0)


def pisa(model):
    """Prime sample attention: ISR-P, ISR-N and CARL."""
    model.roi_heads.sample_weights = L(PISA)(positive_gamma=2.0, negative_gamma=0.5, carl_k=1.0, carl_b=0.2)


def iou_balanced(model):
    """IoU-balanced losses."""
    model.roi_heads.sample_weights = L(IoUBalanced)(eta=1.5, lam=1.5)


def class_balanced_rois(model):
    """Every class among the positives of a minibatch counts the same."""
    model.roi_heads.sample_weights = L(ClassBalancedRoIs)(power=1.0)


def sampling_free(model):
    """All proposals in the losses, the classification loss as large as the box loss."""
    model.roi_heads.sample_weights = L(SamplingFree)(guide=1.0, prior=0.01)
