"""This folder's yaml files on the nodes of a LazyConfig, each changed in place. Branches, which are copies, come last."""

from ....DynamicRCNN.configs.components.dynamic import dense_proposals, dynamic, dynamic_label_assignment
from ....IoUUniformRCNN.configs.components.iou_uniform import iou_uniform
from ....LibraRCNN.configs.components.libra import balanced_pyramid, balanced_rpn, iou_balanced_sampling, libra
from ....R3CNN.configs.components.r3 import loops
from ....RGA_PRM.configs.components.rga_prm import prm, rga


def libra_dynamic(model):
    """Libra's samples and pyramid, Dynamic R-CNN's threshold and loss."""
    iou_balanced_sampling(model)
    balanced_pyramid(model)
    dynamic(model)


def libra_rga_prm(model, train):
    """All of Libra, annealed gradients, two branches; each branch's negatives are balanced over IoU."""
    libra(model)
    rga(train)
    prm(model)


def dynamic_rga(model, train):
    """Dynamic R-CNN with annealed gradients."""
    dynamic(model)
    rga(train)


def iou_uniform_libra_pyramid(model):
    """IoU-Uniform R-CNN on a balanced pyramid."""
    iou_uniform(model)
    balanced_pyramid(model)


def r3_prm(model):
    """One loop over two branches: both are in every loop."""
    loops(model)
    prm(model)


def r3_iou_branch(model):
    """A loop whose boxes come from the regressor that trains on generated ones."""
    loops(model)
    iou_uniform(model)


def everything(model, train, **matcher):
    """Something at every seat; ``matcher``: settings of the dynamic threshold."""
    iou_balanced_sampling(model)
    balanced_pyramid(model)
    balanced_rpn(model)
    dynamic_label_assignment(model, **matcher)
    dense_proposals(model)
    loops(model)
    iou_uniform(model)
    rga(train)
    prm(model)
