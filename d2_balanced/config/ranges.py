"""What the numbers in a config may be: the ranges of detectron2's settings and of this package's plain ones, as data.

What is not listed has to be finite. Arguments of components are checked by their constructors.
"""

from __future__ import annotations

import math
from typing import Dict

from ..utils.numbers import Range

__all__ = ["ARGUMENTS", "TRAIN", "YACS"]

_COUNT = Range(at_least=1, integer=True)
_NATURAL = Range(at_least=0, integer=True)
_WEIGHT = Range(at_least=0)
_POSITIVE = Range(above=0)
_FRACTION = Range(at_least=0, at_most=1)
_SHARE = Range(above=0, at_most=1)
_MATCHED = Range(at_least=-1, at_most=1, integer=True)
_ITERATIONS = Range(at_least=1, at_most=10**9, integer=True)
_CHANNELS = Range(at_least=1, integer=True, also=(-1,))  # detectron2's -1: as many as before
_DETECTIONS = Range(at_least=1, integer=True, also=(-1,))  # detectron2's -1: all that NMS leaves
_ADAPTIVE = Range(at_least=-1, integer=True)  # ROIAlign's 0 and -1: as many samples as the bin has pixels
_SEED = Range(at_most=4_000_000_000, integer=True)  # NumPy takes 32 bits, and every process adds its rank
_NORM = Range(above=0, also=(math.inf,))
_FOCAL_ALPHA = Range(at_least=0, at_most=1, also=(-1,))
_INSIDE = Range(above=0, below=1)
_OFFSET = Range(at_least=0, below=1)


def _by_name(table) -> Dict[str, Range]:
    return {name: limits for limits, names in table for name in names.split()}


YACS = _by_name([
    (_ITERATIONS, "SOLVER.MAX_ITER"),
    (_COUNT, """
        SOLVER.IMS_PER_BATCH SOLVER.ACCUMULATE SOLVER.LOG_PERIOD SOLVER.CHECKPOINT_PERIOD ANALYSIS.PERIOD
        INPUT.MIN_SIZE_TRAIN INPUT.MAX_SIZE_TRAIN INPUT.MAX_SIZE_TEST TEST.IMS_PER_BATCH
        TEST.AUG.MIN_SIZES TEST.AUG.MAX_SIZE
        DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
        MODEL.FPN.OUT_CHANNELS MODEL.RESNETS.NUM_GROUPS MODEL.RESNETS.WIDTH_PER_GROUP MODEL.RESNETS.RES5_DILATION
        MODEL.RESNETS.RES2_OUT_CHANNELS MODEL.RESNETS.STEM_OUT_CHANNELS MODEL.RESNETS.DEFORM_NUM_GROUPS
        MODEL.RPN.BATCH_SIZE_PER_IMAGE MODEL.RPN.PRE_NMS_TOPK_TRAIN MODEL.RPN.PRE_NMS_TOPK_TEST
        MODEL.RPN.POST_NMS_TOPK_TRAIN MODEL.RPN.POST_NMS_TOPK_TEST
        MODEL.ROI_HEADS.NUM_CLASSES MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
        MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION MODEL.ROI_BOX_HEAD.FC_DIM MODEL.ROI_BOX_HEAD.CONV_DIM
        MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION MODEL.ROI_MASK_HEAD.CONV_DIM
        MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS
        MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS MODEL.SEM_SEG_HEAD.NUM_CLASSES MODEL.SEM_SEG_HEAD.CONVS_DIM
        MODEL.RETINANET.NUM_CLASSES MODEL.RETINANET.TOPK_CANDIDATES_TEST
    """),
    (_NATURAL, """
        SOLVER.MAX_TO_KEEP SOLVER.WARMUP_ITERS SOLVER.STEPS SOLVER.REFERENCE_WORLD_SIZE
        TEST.EVAL_PERIOD TEST.PATIENCE ANALYSIS.GRADIENT_PERIOD VIS_PERIOD DATALOADER.NUM_WORKERS INPUT.MIN_SIZE_TEST
        MODEL.ROI_BOX_HEAD.NUM_FC MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_MASK_HEAD.NUM_CONV MODEL.RETINANET.NUM_CONVS
        MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    """),
    (_WEIGHT, """
        SOLVER.BASE_LR SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_NORM SOLVER.WEIGHT_DECAY_BIAS SOLVER.BIAS_LR_FACTOR
        SOLVER.GAMMA MODEL.PROPOSAL_GENERATOR.MIN_SIZE MODEL.RPN.BBOX_REG_LOSS_WEIGHT MODEL.RPN.LOSS_WEIGHT
        MODEL.RPN.SMOOTH_L1_BETA MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA
        MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT MODEL.SEM_SEG_HEAD.LOSS_WEIGHT MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT
        MODEL.RETINANET.FOCAL_LOSS_GAMMA MODEL.RETINANET.SMOOTH_L1_LOSS_BETA
    """),
    (_POSITIVE, """
        SOLVER.CLIP_GRADIENTS.CLIP_VALUE MODEL.PIXEL_STD INPUT.CROP.SIZE
        MODEL.ANCHOR_GENERATOR.SIZES MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS MODEL.RPN.BBOX_REG_WEIGHTS
        MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS MODEL.RETINANET.BBOX_REG_WEIGHTS
    """),
    (_FRACTION, """
        SOLVER.MOMENTUM SOLVER.WARMUP_FACTOR DATALOADER.REPEAT_THRESHOLD MODEL.RPN.NMS_THRESH
        MODEL.ROI_HEADS.SCORE_THRESH_TEST MODEL.ROI_HEADS.NMS_THRESH_TEST
        MODEL.RETINANET.SCORE_THRESH_TEST MODEL.RETINANET.NMS_THRESH_TEST
    """),
    (_SHARE, """
        MODEL.RPN.POSITIVE_FRACTION MODEL.ROI_HEADS.POSITIVE_FRACTION MODEL.RPN.IOU_THRESHOLDS
        MODEL.ROI_HEADS.IOU_THRESHOLDS MODEL.ROI_BOX_CASCADE_HEAD.IOUS MODEL.RETINANET.IOU_THRESHOLDS
    """),
    (_MATCHED, "MODEL.RPN.IOU_LABELS MODEL.ROI_HEADS.IOU_LABELS MODEL.RETINANET.IOU_LABELS"),
    (_ADAPTIVE, """
        MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO
        MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO
    """),
    (_CHANNELS, "MODEL.RPN.CONV_DIMS"),
    (_DETECTIONS, "TEST.DETECTIONS_PER_IMAGE"),
    (_OFFSET, "MODEL.ANCHOR_GENERATOR.OFFSET"),
    (_INSIDE, "MODEL.RETINANET.PRIOR_PROB"),
    (_FOCAL_ALPHA, "MODEL.RETINANET.FOCAL_LOSS_ALPHA"),
    (_NORM, "SOLVER.CLIP_GRADIENTS.NORM_TYPE"),
    (_SEED, "SEED"),
])  # fmt: skip
"""By yacs key."""

TRAIN = _by_name([
    (_ITERATIONS, "train.max_iter"),
    (_COUNT, """
        train.accumulate train.log_period train.checkpointer.period train.record_imbalance.period
        train.test_aug.min_sizes train.test_aug.max_size train.test_batch_size
    """),
    (_NATURAL, """
        train.checkpointer.max_to_keep train.eval_period train.patience train.record_imbalance.gradient_period
    """),
    (_SEED, "train.seed"),
])  # fmt: skip
"""By the key in a LazyConfig's ``train``."""

ARGUMENTS = _by_name([
    (_COUNT, """
        total_batch_size num_classes batch_size_per_image max_detections_per_image test_topk_candidates out_channels
        fc_dims conv_dim num_updates output_size short_edge_length max_size pre_nms_topk post_nms_topk num_groups
        num_keypoints
    """),
    (_NATURAL, "num_workers milestones"),
    (_WEIGHT, """
        lr base_lr weight_decay weight_decay_norm weight_decay_bias bias_lr_factor warmup_length loss_weight
        smooth_l1_beta box_reg_loss_weight focal_loss_gamma min_box_size
    """),
    (_POSITIVE, "clip_value pixel_std sizes aspect_ratios"),
    (_FRACTION, "momentum warmup_factor test_score_thresh test_nms_thresh nms_thresh repeat_threshold"),
    (_SHARE, "positive_fraction thresholds"),
    (_CHANNELS, "conv_dims"),
    (_DETECTIONS, "test_topk_per_image"),
    (_ADAPTIVE, "sampling_ratio"),
    (_OFFSET, "offset"),
    (_INSIDE, "prior_prob"),
    (_FOCAL_ALPHA, "focal_loss_alpha"),
    (_NORM, "norm_type"),
])  # fmt: skip
"""By the name of an argument of detectron2's, torch's or this package's own, in the nodes of a LazyConfig."""
