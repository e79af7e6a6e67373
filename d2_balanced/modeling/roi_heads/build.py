"""From detectron2's yacs config to the constructor arguments of ``BalancedROIHeads``."""

import functools

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import StandardROIHeads, build_box_head
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY

from d2_balanced.modeling.spec import build_component

from ...utils.errors import Refusal
from ..balanced_keys import balanced_keys
from ..box_predictor import BalancedFastRCNNOutputLayers
from ..registry import (
    BOX_CODER_REGISTRY,
    EXTRA_PROPOSALS_REGISTRY,
    IOU_BRANCH_REGISTRY,
    MASK_BRANCH_REGISTRY,
    MASK_IOU_HEAD_REGISTRY,
    NMS_REGISTRY,
    POOLER_REGISTRY,
    PROPOSAL_MATCHER_REGISTRY,
    PROPOSAL_SAMPLER_REGISTRY,
    SAMPLE_WEIGHTS_REGISTRY,
    STAGES_REGISTRY,
)
from .branches import BoxBranch
from .sorted_pooler import SortedROIPooler

__all__ = ["arguments_from_config"]


def arguments_from_config(cfg, input_shape):
    """What ``BalancedROIHeads`` has beside the arguments of ``ROIHeads``: all modules, and the parts along its axes.

    Modules are made in detectron2's order (box, mask, keypoint heads, then what it does not have), so that one seed
    gives both the same weights.
    """
    cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    stages = _component(cfg, STAGES_REGISTRY, "STAGES", ious=tuple(cascade.IOUS))
    mask_branch = _component(cfg, MASK_BRANCH_REGISTRY, "MASKS")
    return {
        **_box_modules(cfg, input_shape, stages),
        **_mask_modules(cfg, input_shape, stages, mask_branch),
        **StandardROIHeads._init_keypoint_head(cfg, input_shape),
        **_branch_zero(cfg),
        **_axes(cfg, input_shape, stages),
        "stages": stages,
        "mask_branch": mask_branch,
        "gradients_annealed": _gradients_annealed(cfg),
    }


def _gradients_annealed(cfg):
    return cfg.SOLVER.get("GRADIENT_ANNEALING", {}).get("INITIAL", 1.0) != 1.0


def _component(cfg, registry, name, **context):
    return build_component(registry, balanced_keys(cfg)[name], f"MODEL.BALANCED.{name}", **context)


def _axes(cfg, input_shape, stages):
    """Matcher, parallel branches, mask IoU head, IoU branch and suppression."""
    balanced, roi_heads = balanced_keys(cfg), cfg.MODEL.ROI_HEADS
    return {
        "proposal_matcher": _component(
            cfg,
            PROPOSAL_MATCHER_REGISTRY,
            "MATCHER",
            thresholds=roi_heads.IOU_THRESHOLDS,
            labels=roi_heads.IOU_LABELS,
            allow_low_quality_matches=False,
        ),
        "branches": [_parallel_branch(cfg, input_shape, stages, p) for p in range(1, len(balanced.BRANCHES))],
        "test_branches": balanced.TEST_BRANCHES,
        "mask_iou_head": _component(
            cfg,
            MASK_IOU_HEAD_REGISTRY,
            "MASK_IOU_HEAD",
            input_shape=_pooled_shape(cfg, input_shape, cfg.MODEL.ROI_MASK_HEAD),
            num_classes=roi_heads.NUM_CLASSES,
        ),
        "extra_proposals": _component(cfg, EXTRA_PROPOSALS_REGISTRY, "EXTRA_PROPOSALS"),
        "sample_weights": _component(cfg, SAMPLE_WEIGHTS_REGISTRY, "SAMPLE_WEIGHTS"),
        "nms": _component(cfg, NMS_REGISTRY, "NMS"),
        "iou_branch": _iou_branch(cfg, input_shape, stages) if balanced.IOU_BRANCH.NAME else None,
    }


def _box_modules(cfg, input_shape, stages):
    box_head, box_predictor = _head_and_predictor(cfg, input_shape, stages)
    return {
        "box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
        "box_pooler": _pooler(cfg, input_shape, cfg.MODEL.ROI_BOX_HEAD, "BOX_POOLER"),
        "box_head": box_head,
        "box_predictor": box_predictor,
    }


def _mask_modules(cfg, input_shape, stages, mask_branch):
    """A pooler and the mask head (a list of heads if every stage has its own); nothing without masks."""
    node = cfg.MODEL.ROI_MASK_HEAD
    if not cfg.MODEL.MASK_ON:
        return {}
    if not node.POOLER_TYPE:
        return StandardROIHeads._init_mask_head(cfg, input_shape)  # a head that takes the feature maps
    head_class = ROI_MASK_HEAD_REGISTRY.get(node.NAME)
    mask_branch.check_head(head_class)
    build_head = functools.partial(head_class, cfg, _pooled_shape(cfg, input_shape, node))
    pooler = _pooler(cfg, input_shape, node, "MASK_POOLER")
    mask_head = mask_branch.build_heads(build_head, stages)
    return {"mask_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES, "mask_pooler": pooler, "mask_head": mask_head}


def _pooler(cfg, input_shape, node, name):
    """The pooler of a head with this node in the config: the component of this name, or detectron2's."""
    settings = {
        "output_size": node.POOLER_RESOLUTION,
        "scales": tuple(1.0 / input_shape[level].stride for level in cfg.MODEL.ROI_HEADS.IN_FEATURES),
        "sampling_ratio": node.POOLER_SAMPLING_RATIO,
        "pooler_type": node.POOLER_TYPE,
    }
    channels = _pooled_shape(cfg, input_shape, node).channels
    own = _component(cfg, POOLER_REGISTRY, name, channels=channels, **settings)
    return own or SortedROIPooler(**settings)


def _pooled_shape(cfg, input_shape, node):
    """``ShapeSpec`` of what this node's head gets."""
    channels = {name: input_shape[name].channels for name in cfg.MODEL.ROI_HEADS.IN_FEATURES}
    if len(set(channels.values())) != 1:
        raise ValueError(
            f"MODEL.ROI_HEADS.IN_FEATURES: the box head is shared by all levels, so they need as many channels each; "
            f"the backbone gives {channels}"
        )
    resolution = node.POOLER_RESOLUTION
    return ShapeSpec(channels=next(iter(channels.values())), height=resolution, width=resolution)


def _bbox_reg_weights(cfg, stages):
    """The box weights of the only head; or a list of them, if every stage has a head of its own."""
    node, weights = "ROI_BOX_CASCADE_HEAD", cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
    if stages.shared_head:
        name = f"MODEL.BALANCED.STAGES.NAME: {type(stages).__name__}"
        _check_unread_weights(cfg, node, name, "the one head has MODEL.ROI_BOX_HEAD's")
    if stages.shared_head or stages.num_train == 1:
        return cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
    if len(weights) != stages.num_train:
        ious = f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS: {list(stages.ious)}"
        given = f"MODEL.{node}.BBOX_REG_WEIGHTS: {weights}"
        raise Refusal(given, ious, "they are not as many", "give one of each to every stage")
    return list(weights)


def _iou_branch(cfg, input_shape, stages):
    """The IoU branch, with box heads of its own like the classifier's."""
    pooled_shape = _pooled_shape(cfg, input_shape, cfg.MODEL.ROI_BOX_HEAD)
    weights = _bbox_reg_weights(cfg, stages)
    heads = [build_box_head(cfg, pooled_shape) for _ in weights] if isinstance(weights, list) else None
    return _component(
        cfg,
        IOU_BRANCH_REGISTRY,
        "IOU_BRANCH",
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        iou_head=heads or build_box_head(cfg, pooled_shape),
        bbox_reg_weights=weights,
    )


def _head_and_predictor(cfg, input_shape, stages):
    """A box head and predictor; a list of each, with detectron2's cascade weights, if every stage has its own."""
    pooled_shape = _pooled_shape(cfg, input_shape, cfg.MODEL.ROI_BOX_HEAD)
    weights = _bbox_reg_weights(cfg, stages)
    if not isinstance(weights, list):
        return _one_head_and_predictor(cfg, pooled_shape, weights, 0)
    pairs = [_one_head_and_predictor(cfg, pooled_shape, of_stage, stage) for stage, of_stage in enumerate(weights)]
    return [head for head, _ in pairs], [predictor for _, predictor in pairs]


def _one_head_and_predictor(cfg, pooled_shape, bbox_reg_weights, stage):
    head = build_box_head(cfg, pooled_shape)
    coder = _box_coder(cfg, stage) or Box2BoxTransform(weights=bbox_reg_weights)
    return head, BalancedFastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=coder)


def _box_coder(cfg, stage):
    """The component of a stage; ``None`` for detectron2's, which alone reads the box weights."""
    coder = _component(cfg, BOX_CODER_REGISTRY, "BOX_CODER", stage=stage)
    for node in ("ROI_BOX_HEAD", "ROI_BOX_CASCADE_HEAD") if coder is not None else ():
        _check_unread_weights(cfg, node, f"MODEL.BALANCED.BOX_CODER.NAME: {type(coder).__name__}", "it has no deltas")
    return coder


def _check_unread_weights(cfg, node, name, reason):
    """Raises ``Refusal`` for box weights in a node of the config that ``name`` leaves unread."""
    weights, default = cfg.MODEL[node].BBOX_REG_WEIGHTS, get_cfg().MODEL[node].BBOX_REG_WEIGHTS
    if _as_lists(weights) != _as_lists(default):
        raise Refusal(f"MODEL.{node}.BBOX_REG_WEIGHTS: {weights}", name, reason, "leave it out")


def _as_lists(weights):
    """By value: detectron2 reads tuples of tuples back from a saved config as tuples of lists."""
    return [_as_lists(each) if isinstance(each, (list, tuple)) else each for each in weights]


def _branch_settings(cfg, p):
    """Sampling of branch ``p``: its own settings in MODEL.BALANCED.BRANCHES, detectron2's keys for what is left out."""
    balanced = balanced_keys(cfg)
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


def _parallel_branch(cfg, input_shape, stages, p):
    box_head, box_predictor = _head_and_predictor(cfg, input_shape, stages)
    return BoxBranch(box_head=box_head, box_predictor=box_predictor, **_branch_settings(cfg, p))
