"""The components of this folder's yaml files on the nodes of a LazyConfig, each changed in place."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.data.mapper import IgnoreRegionMapper
from d2_balanced.modeling.box_losses import SmoothL1
from d2_balanced.modeling.proposal_generator import BalancedRPN
from d2_balanced.modeling.roi_heads import BoxBranch
from d2_balanced.modeling.sampling import HardRatioSampler, RandomSampler


def rga_prm(model, train):
    """Both, as in the paper's main results."""
    rga(train)
    prm(model)


def smooth_l1(model):
    """mmdetection's box loss of that time, SmoothL1 with beta 1; goes before ``prm``, which copies the predictor."""
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, ListConfig) else [predictors]:
        predictor.smooth_l1_beta = predictor.box_loss.beta = 1.0


def rga(train, initial=7.0):
    """R-CNN gradient annealing, section 3.1: the box modules' gradients times a factor that falls from 7 to 1."""
    train["gradient_annealing"]["initial"] = initial


def prm(model, positive_fractions=(0.5, 0.1)):
    """Parallel R-CNN modules, section 3.2: one for each share of positives in its minibatch (1:1 and 1:9)."""
    heads = model.roi_heads
    heads.positive_fraction = positive_fractions[0]
    heads.branches = [_branch(heads, fraction) for fraction in positive_fractions[1:]]


def _branch(heads, positive_fraction):
    """A box module like the one that ``heads`` has; it refers to their settings from its place in ``branches``."""
    predictor = deepcopy(heads.box_predictor)
    if isinstance(predictor, ListConfig):  # a cascade
        for stage in predictor:
            stage.num_classes = "${.....num_classes}"
    else:
        predictor.num_classes = "${....num_classes}"
    return L(BoxBranch)(
        box_head=deepcopy(heads.box_head),
        box_predictor=predictor,
        positive_fraction=positive_fraction,
        batch_size_per_image="${...batch_size_per_image}",
        sampler=deepcopy(heads.proposal_sampler),
    )


def hard_ratio(model):
    """Appendix A: positives are repeated until the ratio of ``roi_heads.positive_fraction`` is met."""
    model.roi_heads.proposal_sampler = L(HardRatioSampler)()


def ignore_regions(model, dataloader):
    """Boxes marked ``iscrowd`` are ignore regions in training; what lies in one is neither positive nor negative."""
    dataloader.train.mapper._target_ = IgnoreRegionMapper
    rpn = model.proposal_generator
    rpn.update(_target_=BalancedRPN, sampler=L(RandomSampler)(), box_loss=L(SmoothL1)(beta=0.0))


def crowd(model, dataloader):
    """Persons in crowds: ignore regions, upright anchors, more than 100 detections an image, low scores kept."""
    ignore_regions(model, dataloader)
    model.proposal_generator.anchor_generator.aspect_ratios = [1.0, 2.0, 3.0]
    model.roi_heads.box_predictor.update(test_score_thresh=0.01, test_topk_per_image=500)
    dataloader.evaluator.max_dets = 500
