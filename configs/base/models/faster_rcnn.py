"""Faster R-CNN with a feature pyramid, as in detectron2's model zoo.

BalancedRPN and BalancedROIHeads as here are RPN and StandardROIHeads, to the bit, with less work for the host.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead

from d2_balanced.modeling.box_losses import SmoothL1
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.cls_losses import CrossEntropy
from d2_balanced.modeling.matcher import FixedMatcher
from d2_balanced.modeling.proposal_generator import BalancedRPN
from d2_balanced.modeling.roi_heads.balanced_roi_heads import BalancedROIHeads
from d2_balanced.modeling.roi_heads.sorted_pooler import SortedROIPooler
from d2_balanced.modeling.roi_heads.stages import SingleStage
from d2_balanced.modeling.sampling import RandomSampler
from d2_balanced.modeling.suppression import NMS

training = dict(lr=0.02, best_metric="bbox/AP")

# compose.py sets backbone.bottom_up, pixel_mean and pixel_std.
model = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=None,
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=L(BalancedRPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(StandardRPNHead)(in_channels=256, num_anchors=3),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
        nms_thresh=0.7,
        sampler=L(RandomSampler)(),
        box_loss=L(SmoothL1)(beta=0.0),
    ),
    roi_heads=L(BalancedROIHeads)(
        num_classes=80,
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=L(FixedMatcher)(thresholds=[0.5], labels=[0, 1]),
        proposal_sampler=L(RandomSampler)(),
        stages=L(SingleStage)(),
        branches=[],
        iou_branch=None,
        nms=L(NMS)(),
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(SortedROIPooler)(
            output_size=7,
            scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels=256, height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(BalancedFastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            box2box_transform=L(Box2BoxTransform)(weights=(10.0, 10.0, 5.0, 5.0)),
            num_classes="${..num_classes}",
            cls_loss=L(CrossEntropy)(),
            box_loss=L(SmoothL1)(beta=0.0),
            test_score_thresh=0.05,
            test_nms_thresh=0.5,
            test_topk_per_image=100,
        ),
    ),
    pixel_mean=None,
    pixel_std=None,
    input_format="BGR",
)
