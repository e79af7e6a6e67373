"""From detectron2's yacs config to the constructor arguments of ``BalancedROIHeads``."""

import functools

from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import StandardROIHeads, build_box_head
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY

from d2_balanced.config import build_component

from ..box_predictor import BalancedFastRCNNOutputLayers
from ..registry import (
    IOU_BRANCH_REGISTRY,
    MASK_BRANCH_REGISTRY,
    MASK_IOU_HEAD_REGISTRY,
    PROPOSAL_MATCHER_REGISTRY,
    PROPOSAL_SAMPLER_REGISTRY,
    STAGES_REGISTRY,
)
from .branches import BoxBranch

__all__ = ["axes_from_config", "box_modules_from_config", "mask_modules_from_config"]


def axes_from_config(cfg, input_shape):
    """The matcher, sampler, stages, branches and IoU branch that ``cfg.MODEL.BALANCED`` asks for, as keyword arguments."""
    balanced = cfg.MODEL.BALANCED
    arguments = _branch_zero(cfg)
    arguments.update(
        proposal_matcher=build_component(
            PROPOSAL_MATCHER_REGISTRY,
            balanced.MATCHER,
            "MODEL.BALANCED.MATCHER",
            thresholds=cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS,
            labels=cfg.MODEL.ROI_HEADS.IOU_LABELS,
            allow_low_quality_matches=False,
        ),
        stages=_stages(cfg),
        branches=[_parallel_branch(cfg, input_shape, p) for p in range(1, len(balanced.BRANCHES))],
        test_branches=balanced.TEST_BRANCHES,
        mask_branch=_mask_branch(cfg),
        mask_iou_head=_mask_iou_head(cfg, input_shape),
    )
    if balanced.IOU_BRANCH.NAME:
        arguments["iou_branch"] = _iou_branch(cfg, input_shape)
    return arguments


def box_modules_from_config(cfg, input_shape):
    """``box_in_features``, ``box_pooler``, ``box_head`` and ``box_predictor`` (lists of the latter two for a cascade)."""
    pooled_shape = _pooled_shape(cfg, input_shape)
    in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
    pooler = ROIPooler(
        output_size=cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
        scales=tuple(1.0 / input_shape[name].stride for name in in_features),
        sampling_ratio=cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
        pooler_type=cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
    )
    box_head, box_predictor = _head_and_predictor(cfg, pooled_shape)
    return {
        "box_in_features": in_features,
        "box_pooler": pooler,
        "box_head": box_head,
        "box_predictor": box_predictor,
    }


def mask_modules_from_config(cfg, input_shape):
    """``mask_in_features``, ``mask_pooler`` and ``mask_head`` (a list of heads if every stage has its own); or nothing."""
    if not cfg.MODEL.MASK_ON:
        return {}
    head_class = ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)
    shape = _pooled_mask_shape(cfg, input_shape)
    own = _mask_branch(cfg).own_heads(functools.partial(head_class, cfg, shape), _stages(cfg))
    modules = StandardROIHeads._init_mask_head(cfg, input_shape)
    return modules if own is None else {**modules, "mask_head": own}


def _mask_branch(cfg):
    return build_component(MASK_BRANCH_REGISTRY, cfg.MODEL.BALANCED.MASKS, "MODEL.BALANCED.MASKS")


def _mask_iou_head(cfg, input_shape):
    return build_component(
        MASK_IOU_HEAD_REGISTRY,
        cfg.MODEL.BALANCED.MASK_IOU_HEAD,
        "MODEL.BALANCED.MASK_IOU_HEAD",
        input_shape=_pooled_mask_shape(cfg, input_shape),
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
    )


def _pooled_mask_shape(cfg, input_shape):
    resolution = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
    channels = _pooled_shape(cfg, input_shape).channels
    return ShapeSpec(channels=channels, height=resolution, width=resolution)


def _pooled_shape(cfg, input_shape):
    channels = {name: input_shape[name].channels for name in cfg.MODEL.ROI_HEADS.IN_FEATURES}
    if len(set(channels.values())) != 1:
        raise ValueError(
            f"MODEL.ROI_HEADS.IN_FEATURES: the box head is shared by all levels, so they need as many channels each; "
            f"the backbone gives {channels}"
        )
    resolution = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    return ShapeSpec(channels=next(iter(channels.values())), height=resolution, width=resolution)


def _stages(cfg):
    cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    return build_component(
        STAGES_REGISTRY, cfg.MODEL.BALANCED.STAGES, "MODEL.BALANCED.STAGES", ious=tuple(cascade.IOUS)
    )


def _bbox_reg_weights(cfg, stages):
    """The box weights of the only head; or a list of them, if every stage has a head of its own."""
    if stages.shared_head or stages.num_train == 1:
        return cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
    weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
    if len(weights) != stages.num_train:
        raise ValueError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS has {len(weights)} entries and "
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS {stages.num_train}; give one of each to every stage"
        )
    return list(weights)


def _iou_branch(cfg, input_shape):
    """The IoU branch, with box heads of its own like the classifier's."""
    pooled_shape = _pooled_shape(cfg, input_shape)
    weights = _bbox_reg_weights(cfg, _stages(cfg))
    heads = [build_box_head(cfg, pooled_shape) for _ in weights] if isinstance(weights, list) else None
    return build_component(
        IOU_BRANCH_REGISTRY,
        cfg.MODEL.BALANCED.IOU_BRANCH,
        "MODEL.BALANCED.IOU_BRANCH",
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        iou_head=heads or build_box_head(cfg, pooled_shape),
        bbox_reg_weights=weights,
    )


def _head_and_predictor(cfg, pooled_shape):
    """A box head and predictor; a list of each, with detectron2's cascade weights, if every stage has its own."""
    weights = _bbox_reg_weights(cfg, _stages(cfg))
    if not isinstance(weights, list):
        return _one_head_and_predictor(cfg, pooled_shape, weights)
    pairs = [_one_head_and_predictor(cfg, pooled_shape, stage_weights) for stage_weights in weights]
    return [head for head, _ in pairs], [predictor for _, predictor in pairs]


def _one_head_and_predictor(cfg, pooled_shape, bbox_reg_weights):
    head = build_box_head(cfg, pooled_shape)
    transform = Box2BoxTransform(weights=bbox_reg_weights)
    return head, BalancedFastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=transform)


def _branch_settings(cfg, p):
    """Sampling of branch ``p``: its own settings in MODEL.BALANCED.BRANCHES, detectron2's keys for what it leaves out."""
    balanced = cfg.MODEL.BALANCED
    own = balanced.BRANCHES[p] if p < len(balanced.BRANCHES) else {}
    key = f"MODEL.BALANCED.BRANCHES[{p}].SAMPLER" if "SAMPLER" in own else "MODEL.BALANCED.SAMPLER"
    return {
        "positive_fraction": own.get("POSITIVE_FRACTION", cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION),
        "batch_size_per_image": own.get("BATCH_SIZE_PER_IMAGE", cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE),
        "sampler": build_component(PROPOSAL_SAMPLER_REGISTRY, own.get("SAMPLER", balanced.SAMPLER), key),
    }


def _branch_zero(cfg):
    settings = _branch_settings(cfg, 0)
    return {"proposal_sampler": settings.pop("sampler"), **settings}


def _parallel_branch(cfg, input_shape, p):
    box_head, box_predictor = _head_and_predictor(cfg, _pooled_shape(cfg, input_shape))
    return BoxBranch(box_head=box_head, box_predictor=box_predictor, **_branch_settings(cfg, p))
