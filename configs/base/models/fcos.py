"""FCOS, as in detectron2's LazyConfigs: its centres, GIoU loss and GroupNorm."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7

from d2_balanced.modeling.meta_arch import BalancedFCOS, BalancedFCOSHead

training = dict(lr=0.01, best_metric="bbox/AP")

# compose.py sets backbone.bottom_up, pixel_mean and pixel_std.
model = L(BalancedFCOS)(
    backbone=L(FPN)(
        bottom_up=None,
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelP6P7)(in_channels="${..out_channels}", out_channels="${..out_channels}", in_feature="p5"),
    ),
    head=L(BalancedFCOSHead)(
        input_shape=[L(ShapeSpec)(channels=256) for _ in range(5)],
        num_classes="${..num_classes}",
        conv_dims=[256, 256, 256, 256],
        prior_prob=0.01,
        norm="GN",
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    num_classes=80,
    focal_loss_alpha=0.25,
    focal_loss_gamma=2.0,
    test_score_thresh=0.2,  # of the root of class score times centerness
    test_topk_candidates=1000,
    test_nms_thresh=0.6,
    max_detections_per_image=100,
    pixel_mean=None,
    pixel_std=None,
    input_format="BGR",
)
