"""RetinaNet, as in detectron2's model zoo. BalancedRetinaNet as here is RetinaNet."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from d2_balanced.modeling.box_losses import SmoothL1
from d2_balanced.modeling.cls_losses import FocalLoss
from d2_balanced.modeling.meta_arch.retinanet import BalancedRetinaNet
from d2_balanced.modeling.suppression import NMS

training = dict(lr=0.01, best_metric="bbox/AP")

# compose.py sets backbone.bottom_up, pixel_mean and pixel_std.
model = L(BalancedRetinaNet)(
    backbone=L(FPN)(
        bottom_up=None,
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}"),
    ),
    head=L(RetinaNetHead)(
        input_shape=[L(ShapeSpec)(channels=256) for _ in range(5)],
        num_classes="${..num_classes}",
        conv_dims=[256, 256, 256, 256],
        prior_prob=0.01,
        num_anchors=9,
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    anchor_matcher=L(Matcher)(thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True),
    num_classes=80,
    focal_loss_alpha=0.25,
    focal_loss_gamma=2.0,
    cls_loss=L(FocalLoss)(form="sigmoid", alpha="${..focal_loss_alpha}", gamma="${..focal_loss_gamma}"),
    box_loss=L(SmoothL1)(beta=0.0),
    nms=L(NMS)(),
    test_score_thresh=0.05,
    test_topk_candidates=1000,
    test_nms_thresh=0.5,
    max_detections_per_image=100,
    pixel_mean=None,
    pixel_std=None,
    input_format="BGR",
)
