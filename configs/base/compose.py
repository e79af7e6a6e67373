"""A LazyConfig from one file of each of models/, backbones/, schedules/ and data/, as the yaml twins are made."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.solver import get_default_optimizer_params

from d2_balanced.config import data_defaults, train_defaults


def compose(model, backbone, schedule, dataset="coco"):
    """``model, data, dataloader, optimizer, lr_multiplier, train`` from the names of the four files."""
    model, training = LazyConfig.load_rel(f"models/{model}.py", ("model", "training"))
    bottom_up, pretrained = LazyConfig.load_rel(f"backbones/{backbone}.py", ("bottom_up", "pretrained"))
    dataloader, eval_period, num_classes = LazyConfig.load_rel(
        f"data/{dataset}.py", ("dataloader", "eval_period", "num_classes")
    )
    lr_multiplier, max_iter, batch_size = LazyConfig.load_rel(
        f"schedules/{schedule}.py", ("lr_multiplier", "max_iter", "batch_size")
    )
    model.backbone.bottom_up = bottom_up
    model.pixel_mean, model.pixel_std = pretrained.pixel_mean, pretrained.pixel_std
    if "roi_heads" in model:
        model.roi_heads.num_classes = num_classes
    elif "num_classes" in model:
        model.num_classes = num_classes
    dataloader.train.total_batch_size = batch_size
    dataloader.train.mapper.use_instance_mask = "mask_head" in model.get("roi_heads", {})
    train = {
        **train_defaults(),
        "init_checkpoint": pretrained.init_checkpoint,
        "max_iter": max_iter,
        "eval_period": eval_period,
        "best_metric": training.best_metric,
    }
    return model, data_defaults(), dataloader, sgd(training.lr), lr_multiplier, train


def sgd(lr):
    """SGD as in detectron2's yacs configs: no weight decay on normalisation layers."""
    return L(torch.optim.SGD)(
        params=L(get_default_optimizer_params)(weight_decay_norm=0.0),  # the trainer adds the model
        lr=lr,
        momentum=0.9,
        weight_decay=1e-4,
    )
