"""The quick Faster R-CNN is, setting by setting, the recipe that was measured under plain detectron2 (TINY.md)."""

import pytest
import torch
import twins
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn


def recipe(num_classes):
    """The recipe in detectron2's own keys and with its own classes; the number of classes is the data's."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [127.5] * 3, [64.0] * 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_resnet_fpn_backbone", 0
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.RES2_OUT_CHANNELS, resnet.NORM, resnet.STRIDE_IN_1X1 = 18, 64, "BN", False
    resnet.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    rpn = cfg.MODEL.RPN
    rpn.IN_FEATURES, rpn.BATCH_SIZE_PER_IMAGE = ["p2", "p3", "p4", "p5", "p6"], 128
    rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST = 500, 300
    rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST = 300, 200
    heads = cfg.MODEL.ROI_HEADS
    heads.NAME, heads.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
    heads.BATCH_SIZE_PER_IMAGE, heads.NUM_CLASSES = 128, num_classes
    box = cfg.MODEL.ROI_BOX_HEAD
    box.NAME, box.NUM_FC, box.FC_DIM = "FastRCNNConvFCHead", 2, 256
    box.POOLER_RESOLUTION, box.POOLER_SAMPLING_RATIO = 7, 2
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (160,), 320
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 160, 320
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER = 4, 0.03, 240
    solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS, solver.WARMUP_FACTOR = "WarmupCosineLR", 50, 0.01
    solver.CLIP_GRADIENTS.ENABLED, solver.CLIP_GRADIENTS.CLIP_TYPE = True, "norm"
    solver.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    return cfg


@pytest.fixture(scope="module")
def plain_and_quick():
    quick, lazy = twins.load_both("configs/quick/faster_rcnn_R_18_FPN")
    quick.MODEL.DEVICE = "cpu"
    plain = recipe(quick.MODEL.ROI_HEADS.NUM_CLASSES)
    models = build_model(plain), build_model(quick)
    models[1].load_state_dict(models[0].state_dict())
    return plain, quick, lazy, models


def test_same_model(plain_and_quick):
    plain, _, _, models = plain_and_quick
    batch = twins.inputs(plain)
    losses = [twins.training_losses(model, batch) for model in models]
    assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}
    settings = [twins.settings_of(model) for model in models]
    for name in settings[0]:  # BalancedROIHeads have settings of their own, and all of detectron2's
        for attribute, value in settings[0][name].items():
            if attribute not in ("class", "proposal_matcher"):
                assert settings[1][name][attribute] == value, (name, attribute)


def test_same_training(plain_and_quick):
    plain, quick, lazy, models = plain_and_quick
    groups = [
        twins.groups_of(build_optimizer(cfg, model), model) for cfg, model in zip((plain, quick), models)
    ]
    assert groups[0] == groups[1]
    parameter = nn.Parameter(torch.zeros(1))
    rates = [
        [twins.rate_at(schedule, i) for i in range(240)]
        for schedule in (
            build_lr_scheduler(cfg, torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)) for cfg in (plain, quick)
        )
    ]
    assert rates[0] == rates[1] and len(set(rates[0])) == 240
    assert dict(quick.SOLVER.CLIP_GRADIENTS) == dict(plain.SOLVER.CLIP_GRADIENTS)
    assert quick.SOLVER.IMS_PER_BATCH == lazy.dataloader.train.total_batch_size == 4
    for is_train in (True, False):
        assert twins.plain(DatasetMapper(plain, is_train)) == twins.plain(DatasetMapper(quick, is_train))
