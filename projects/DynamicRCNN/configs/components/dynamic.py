"""Dynamic R-CNN's components on the nodes of a LazyConfig, each changed in place (the yaml files of this folder)."""

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.box_losses import DynamicSmoothL1
from d2_balanced.modeling.matcher import DynamicMatcher

from .....configs.base.schedules.multistep import multistep


def dynamic(model):
    """All of Dynamic R-CNN."""
    dynamic_label_assignment(model)
    dynamic_smooth_l1(model)
    dense_proposals(model)


def dynamic_label_assignment(model, **settings):
    """Section 4.1: the threshold between positives and negatives starts at 0.4, and follows the proposals' IoUs."""
    model.roi_heads.proposal_matcher = L(DynamicMatcher)(thresholds=[0.4], labels=[0, 1], **settings)


def dynamic_smooth_l1(model, **settings):
    """Section 4.2: SmoothL1 whose beta follows the regression errors; each stage of a cascade has its own."""
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, ListConfig) else [predictors]:
        predictor.box_loss = L(DynamicSmoothL1)(**settings)


def dense_proposals(model):
    """Section 5.2: more proposals survive the RPN, in training and testing. The paper's baselines have it as well."""
    model.proposal_generator.nms_thresh = 0.85


def multi_scale(dataloader, train):
    """The authors' multi-scale training of 3x, with its schedule. Returns the rate's multiplier."""
    resize = dataloader.train.mapper.augmentations[0]
    resize.update(short_edge_length=[400, 600, 800, 1000, 1200], max_size=1400)
    train.update(max_iter=270000)
    return multistep(270000, steps=[180000, 240000])
