"""IoU-Uniform R-CNN on the nodes of a LazyConfig, changed in place (the yaml files of this folder)."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from omegaconf import ListConfig

from d2_balanced.modeling.extra_proposals import GeneratedPositives
from d2_balanced.modeling.roi_heads.iou_branch import IoUBranch

from .....configs.base.schedules.multistep import multistep


def iou_uniform(model, **settings):
    """All of it, with settings of ``IoUBranch``; its box heads are like the classifier's, one a stage in a cascade."""
    heads = model.roi_heads
    # Another box coder than detectron2's has none, and is refused beside the branch.
    coders = [predictor.box2box_transform for predictor in _each(heads.box_predictor)]
    weights = [coder.get("weights", (10.0, 10.0, 5.0, 5.0)) for coder in coders]
    heads.iou_branch = L(IoUBranch)(
        num_classes="${..num_classes}",
        iou_head=deepcopy(heads.box_head),
        bbox_reg_weights=weights if isinstance(heads.box_head, ListConfig) else weights[0],
        **settings,
    )


def uniform_samples(model, **settings):
    """Section 3.1 alone: no IoU predictor, no weights (table 4, row 2)."""
    iou_uniform(model, predict_iou=False, interval_weights="none", **settings)


def split_regressor(model):
    """Section 4.3, figure 3: a regressor with a box head of its own on the RPN's positives; no IoU predictor."""
    uniform_samples(model, regressor_samples="proposals")


def iou_predictor(model, **settings):
    """Section 3.2 added: the IoU predictor and EFO, still without weights (table 4, row 3)."""
    iou_uniform(model, interval_weights="none", **settings)


def released(model):
    """What the released code does instead: rejection sampling, its weights, a linear IoU output."""
    iou_uniform(
        model,
        regressor_samples="rejection",
        iou_samples="rejection",
        interval_weights="released",
        iou_activation="clamp",
    )


def extra_positives(model, **settings):
    """Section 3.1 for an ordinary head: as many generated boxes as positive proposals join the proposals."""
    model.roi_heads.extra_proposals = L(GeneratedPositives)(**{"per_positive": 1.0, **settings})


def coco_4_images(dataloader, optimizer, train):
    """The authors' run on COCO: 4 images, twice the rate that linear scaling gives. Returns the rate's multiplier."""
    dataloader.train.total_batch_size = 4
    optimizer.lr = 0.01
    train.update(max_iter=360000, eval_period=20000)
    return multistep(360000, steps=[240000, 320000])


def voc_12_epochs(dataloader, optimizer, train, lr=0.0025):
    """The authors' run on VOC: 4 images, mmdetection's image size and drop. Returns the rate's multiplier."""
    dataloader.train.total_batch_size = 4
    dataloader.train.mapper.augmentations[0].update(short_edge_length=[600], max_size=1000)
    dataloader.test.mapper.augmentations[0].update(short_edge_length=600, max_size=1000)
    optimizer.lr = lr
    train.update(max_iter=49653, eval_period=16551)
    return multistep(49653, steps=[37240], warmup_iters=500)


def _each(node):
    return node if isinstance(node, ListConfig) else [node]
