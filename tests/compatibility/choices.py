"""What can be chosen at every seat of the pipeline, as the settings that choose it; detectron2's own choices included.

A default (FPN, fixed threshold, random sampling, one stage, L1, ...) is a seat at which nothing is chosen.
"""

import itertools
import os
from typing import Any, Dict, NamedTuple, Tuple

from paths import ROOT

QUICK = os.path.join(ROOT, "configs", "quick")
FASTER, FAST, RPN, RETINANET = (f"{name}_R_18_FPN.yaml" for name in ("faster_rcnn", "fast_rcnn", "rpn", "retinanet"))


class Choice(NamedTuple):
    """One choice at a seat."""

    name: str
    settings: Dict[str, Any]
    words: Tuple[str, ...]
    """A refusal names this choice by at least one of these, in any case."""
    base: str = ""
    """A config of its own to start from, for a detector."""
    instead: Dict[str, Dict[str, Any]] = {}
    """Other settings beside some choices."""
    implies: Tuple[str, ...] = ()
    """Choices that this one includes, so that they add nothing to it."""


def _sampler(name, key="MODEL.BALANCED.SAMPLER", seat="", **arguments):
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    words = (key, name)
    if seat:
        settings["MODEL.PROPOSAL_GENERATOR.NAME"] = "BalancedRPN"
        words += ("BalancedRPN",)
    return Choice(f"{name}{seat}", settings, words)


def _pyramid(name, builder):
    settings = {"MODEL.BACKBONE.NAME": f"build_resnet_{builder}_backbone"}
    on_retinanet = {"MODEL.BACKBONE.NAME": f"build_retinanet_resnet_{builder}_backbone"}
    return Choice(name, settings, ("MODEL.BACKBONE", name), instead={"RetinaNet": on_retinanet})


_BALANCED = "MODEL.BALANCED"
# On a mask head of another choice.
_ANY_MASKS = {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 4, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}
_MASKS = {**_ANY_MASKS, "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead"}
_AGNOSTIC = {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
_CONTEXT = {f"{_BALANCED}.CONTEXT.STAGES": ["res5"], f"{_BALANCED}.CONTEXT.RATIO": 0.25}
_REGIONS = {"INPUT.IGNORE_REGIONS": True}
_CASCADE_WEIGHTS = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"


def _stages(name, label="", **arguments):
    key = f"{_BALANCED}.STAGES"
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}, **_AGNOSTIC}
    return Choice(name + label, settings, ("STAGES", "stages", name))


def _iou_branch(label="", **arguments):
    key = f"{_BALANCED}.IOU_BRANCH"
    settings = {f"{key}.NAME": "IoUBranch", **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    return Choice("IoUBranch" + label, settings, ("IOU_BRANCH", "IoUBranch"))


def _mask_iou(name, **arguments):
    key = f"{_BALANCED}.MASK_IOU_HEAD"
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    words = ("MASK_IOU_HEAD", name, "MASK_ON")
    return Choice(name, {**_ANY_MASKS, **settings}, words, implies=("Mask R-CNN",))


def _pooler(key, label, **masks):
    node = f"{_BALANCED}.{key}_POOLER"
    words = (node, "GenericROIPooler", *masks)
    implies = ("Mask R-CNN",) if masks else ()
    return Choice(f"GenericROIPooler ({label})", {**masks, f"{node}.NAME": "GenericROIPooler"}, words, implies=implies)


_BOX_LOSS, _RPN_LOSS, _RETINANET_LOSS = (f"{_BALANCED}{seat}.BOX_LOSS" for seat in ("", ".RPN", ".RETINANET"))
_CLS_LOSS, _RPN_CLS_LOSS, _RETINANET_CLS_LOSS = (f"{_BALANCED}{seat}.CLS_LOSS" for seat in ("", ".RPN", ".RETINANET"))
_PLAIN_RPN = {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"}
_IN_RPN = {"MODEL.PROPOSAL_GENERATOR.NAME": "BalancedRPN"}


def _loss(key, name, label="", base="", **arguments):
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    if ".RPN." in key:
        return Choice(f"{name} (RPN){label}", {**_IN_RPN, **settings}, (key, name, "BalancedRPN"))
    return Choice(name + label, settings, (key, key.rsplit(".", 1)[1], name), base=base)


def _weights(name, label="", **arguments):
    key = f"{_BALANCED}.SAMPLE_WEIGHTS"
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    return Choice(name + label, settings, ("SAMPLE_WEIGHTS", name))


_TWO_BRANCHES = Choice(
    "two branches",
    {f"{_BALANCED}.BRANCHES": [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]},
    ("BRANCHES", "branch"),
)


_BUCKETS = Choice(
    "Buckets",
    {
        f"{_BALANCED}.BOX_CODER.NAME": "Buckets",
        f"{_BALANCED}.BOX_CODER.NUM_BUCKETS": 8,
        f"{_BOX_LOSS}.NAME": "BucketLoss",
    },
    ("BOX_CODER", "Buckets", "BucketLoss"),
)


def _nms(name, label="", key=f"{_BALANCED}.NMS", base="", beside=(), **arguments):
    """A suppression, with the settings of the choices ``beside`` it that give it what it wants."""
    settings = {f"{key}.NAME": name, **{f"{key}.{a.upper()}": value for a, value in arguments.items()}}
    words = (key, name, *(word for choice in beside for word in choice.words))
    beside = {k: value for choice in beside for k, value in choice.settings.items()}
    return Choice(name + label, {**beside, **settings}, words, base=base)


# Seats in the order of the pipeline. Where two choices name the backbone, the pyramid's, which comes later, is the one.
SEATS: Dict[str, Tuple[Choice, ...]] = {
    "detector": (
        Choice("Fast R-CNN", {}, ("PrecomputedProposals",), base=FAST),
        Choice("RPN alone", {}, ("ProposalNetwork",), base=RPN),
        Choice("RetinaNet", {}, ("RetinaNet",), base=RETINANET),
        Choice(
            "RetinaNet with BalancedL1", {f"{_RETINANET_LOSS}.NAME": "BalancedL1"}, ("RetinaNet",), base=RETINANET
        ),
        Choice(
            "RetinaNet with QualityFocal and EIoU",
            {f"{_RETINANET_CLS_LOSS}.NAME": "QualityFocal", f"{_RETINANET_LOSS}.NAME": "EIoU"},
            ("RetinaNet",),
            base=RETINANET,
        ),
        Choice("StandardROIHeads", {"MODEL.ROI_HEADS.NAME": "StandardROIHeads"}, ("StandardROIHeads",)),
        Choice("CascadeROIHeads", {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", **_AGNOSTIC}, ("CascadeROIHeads",)),
    ),
    "backbone": (
        Choice(
            "context blocks",
            {"MODEL.BACKBONE.NAME": "build_resnet_context_fpn_backbone", **_CONTEXT},
            ("MODEL.BACKBONE", "CONTEXT"),
            instead={
                "RetinaNet": {"MODEL.BACKBONE.NAME": "build_retinanet_resnet_context_fpn_backbone", **_CONTEXT}
            },
        ),
    ),
    "pyramid": (
        _pyramid("BalancedFPN", "balanced_fpn"),
        _pyramid("PAFPN", "pafpn"),
        _pyramid("BalancedPAFPN", "balanced_pafpn"),
    ),
    "RPN sampler": (
        _sampler("RandomSampler", "MODEL.BALANCED.RPN.SAMPLER", " (RPN)", neg_pos_ub=0.5),
        _sampler("InstanceBalancedSampler", "MODEL.BALANCED.RPN.SAMPLER", " (RPN)"),
        _sampler("IoUBalancedSampler", "MODEL.BALANCED.RPN.SAMPLER", " (RPN)"),
    ),
    "RPN classification loss": (_loss(_RPN_CLS_LOSS, "QualityFocal"),),
    "RPN box loss": (
        _loss(_RPN_LOSS, "EIoU"),
        Choice("BalancedL1 (RPN)", {**_IN_RPN, f"{_RPN_LOSS}.NAME": "BalancedL1"}, (_RPN_LOSS, "BalancedRPN")),
        Choice("GIoU (RPN)", {"MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou"}, ("MODEL.RPN.BBOX_REG_LOSS_TYPE",)),
    ),
    "ignore regions": (
        Choice(
            "ignore regions",
            {**_REGIONS, **_IN_RPN},
            ("IGNORE_REGIONS",),
            instead={"Fast R-CNN": _REGIONS},
        ),
    ),
    "matcher": (
        Choice(
            "FixedMatcher, ignored band",
            {"MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.3, 0.5], "MODEL.ROI_HEADS.IOU_LABELS": [0, -1, 1]},
            ("MODEL.ROI_HEADS.IOU_", "FixedMatcher"),
        ),
        Choice(
            "DynamicMatcher",
            {
                f"{_BALANCED}.MATCHER.NAME": "DynamicMatcher",
                f"{_BALANCED}.MATCHER.PERIOD": 1,
                "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.3],
            },
            ("MATCHER", "DynamicMatcher", "MODEL.ROI_HEADS.IOU_"),
        ),
    ),
    "extra proposals": (
        Choice(
            "GeneratedPositives",
            {f"{_BALANCED}.EXTRA_PROPOSALS.NAME": "GeneratedPositives", f"{_BALANCED}.EXTRA_PROPOSALS.PER_POSITIVE": 1.0},
            ("EXTRA_PROPOSALS", "GeneratedPositives"),
        ),
    ),
    "RoI sampler": (
        _sampler("RandomSampler", neg_pos_ub=1.0),
        _sampler("InstanceBalancedSampler"),
        _sampler("IoUBalancedSampler"),
        _sampler("HardRatioSampler"),
    ),
    "stages": (
        _stages("CascadeStages"),
        _stages("CascadeStages", ", resampling", resample=True, keep_appended_gt=False),
        _stages("RecursiveStages"),
    ),
    "branches": (
        _TWO_BRANCHES,
        Choice(
            "two branches, a sampler each",
            {
                f"{_BALANCED}.BRANCHES": [
                    {"SAMPLER": {"NAME": "HardRatioSampler"}},
                    {"POSITIVE_FRACTION": 0.1, "SAMPLER": {"NAME": "IoUBalancedSampler"}},
                ]
            },
            ("BRANCHES", "branch"),
        ),
    ),
    "box pooler": (_pooler("BOX", "boxes"),),
    "box head": (
        Choice(
            "NonLocalConvHead", {"MODEL.ROI_BOX_HEAD.NAME": "NonLocalConvHead"}, ("ROI_BOX_HEAD", "NonLocalConvHead")
        ),
        Choice(
            "DoubleHead",
            {
                "MODEL.ROI_BOX_HEAD.NAME": "DoubleHead",
                "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
                "MODEL.ROI_BOX_HEAD.CONV_DIM": 4,
                "MODEL.ROI_BOX_HEAD.NORM": "BN",
            },
            ("ROI_BOX_HEAD", "DoubleHead"),
        ),
    ),
    "box coder": (_BUCKETS,),
    "IoU branch": (
        _iou_branch(),
        _iou_branch(", no EFO", efo=False),
        _iou_branch(" on proposals", regressor_samples="proposals", iou_samples="proposals"),
        _iou_branch(", no IoU predictor", predict_iou=False),
    ),
    "sample weights": (
        _weights("OHEM", ", share of positives kept", fraction=True),
        _weights("PISA"),
        _weights("SamplingFree"),
    ),
    "classification loss": (
        _loss(_CLS_LOSS, "SeesawLoss"),
        _loss(_CLS_LOSS, "EQLv2"),
        _loss(_CLS_LOSS, "QualityFocal"),
    ),
    "box loss": (
        _loss(_BOX_LOSS, "GHMR"),
        _loss(_BOX_LOSS, "EIoU"),
        _loss(_BOX_LOSS, "KLLoss"),
        Choice("SmoothL1, beta 1", {"MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0}, ("SMOOTH_L1_BETA", "SmoothL1")),
        Choice("BalancedL1", {f"{_BOX_LOSS}.NAME": "BalancedL1"}, ("BOX_LOSS", "BalancedL1")),
        Choice(
            "DynamicSmoothL1",
            {f"{_BOX_LOSS}.NAME": "DynamicSmoothL1", f"{_BOX_LOSS}.PERIOD": 1},
            ("BOX_LOSS", "DynamicSmoothL1"),
        ),
        Choice("GIoU", {"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou"}, ("BBOX_REG_LOSS_TYPE", "giou")),
    ),
    "suppression": (_nms("SoftNMS"),),
    "gradients": (
        Choice("RGA", {"SOLVER.GRADIENT_ANNEALING.INITIAL": 7.0}, ("GRADIENT_ANNEALING",)),
        Choice(
            "RGA on boxes and masks",
            {
                "SOLVER.GRADIENT_ANNEALING.INITIAL": 7.0,
                "SOLVER.GRADIENT_ANNEALING.PARAMETERS": "box_and_mask",
                **_ANY_MASKS,
            },
            ("GRADIENT_ANNEALING", "MODEL.MASK_ON"),
            implies=("Mask R-CNN",),
        ),
    ),
    "masks": (
        Choice("Mask R-CNN", _MASKS, ("MASK_ON", "mask")),
        Choice(
            "InterleavedMasks",
            {**_MASKS, f"{_BALANCED}.MASKS.NAME": "InterleavedMasks", "MODEL.ROI_MASK_HEAD.NAME": "FlowMaskHead"},
            ("MASKS", "MASK_ON", "InterleavedMasks"),
        ),
    ),
    "mask pooler": (_pooler("MASK", "masks", **_ANY_MASKS),),
    "mask IoU": (
        _mask_iou("MaskIoUHead", conv_dim=8, num_conv=1, fc_dims=[8]),
        _mask_iou("NonLocalMaskIoUHead", kernel_size=3),
    ),
    "other heads": (
        Choice(
            "masks on predicted boxes",
            {**_ANY_MASKS, "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True},
            ("TRAIN_ON_PRED_BOXES", "MASK_ON"),
            implies=("Mask R-CNN",),
        ),
        Choice(
            "keypoints",
            {
                "MODEL.KEYPOINT_ON": True,
                "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 2,
                "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [8],
                "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 4,
                "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 0,
            },
            ("KEYPOINT", "keypoint"),
        ),
    ),
}

# Choices that ask for nothing that one of the above does not ask for. They train alone; their pairs are that one's.
ALIKE: Dict[str, Tuple[Choice, ...]] = {
    "OHEM, share of positives kept": (_weights("OHEM"),),
    "PISA": (_weights("IoUBalanced"), _weights("ClassBalancedRoIs")),
    "SeesawLoss": (
        _loss(_CLS_LOSS, "FocalLoss"),
        _loss(_CLS_LOSS, "GHMC"),
        _loss(_CLS_LOSS, "ClassBalanced", class_counts=[100.0, 10.0, 1.0]),
    ),
    "EQLv2": (
        _loss(_CLS_LOSS, "CrossEntropy", " of sigmoids", form="sigmoid"),
        _loss(_CLS_LOSS, "FocalLoss", " of sigmoids", form="sigmoid"),
        _loss(_CLS_LOSS, "EQLv2", " without objectness", objectness=False),
    ),
    "QualityFocal": (_loss(_CLS_LOSS, "Varifocal"),),
    "QualityFocal (RPN)": (
        _loss(_RPN_CLS_LOSS, "FocalLoss", form="sigmoid"),
        _loss(_RPN_CLS_LOSS, "GHMC", form="sigmoid"),
        _loss(_RPN_CLS_LOSS, "Varifocal"),
    ),
    "EIoU": tuple(
        _loss(_BOX_LOSS, name, " (component)" if name == "GIoU" else "")
        for name in ("IoULoss", "BoundedIoU", "GIoU", "DIoU", "CIoU")
    ),
    "EIoU (RPN)": (_loss(_RPN_LOSS, "GHMR"),),
    "Buckets": (
        Choice(
            "SideAwareHead",
            {
                **_BUCKETS.settings,
                "MODEL.ROI_BOX_HEAD.NAME": "SideAwareHead",
                "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
                "MODEL.ROI_BOX_HEAD.CONV_DIM": 4,
            },
            ("ROI_BOX_HEAD", "SideAwareHead"),
        ),
    ),
    "SoftNMS": (
        _nms("BoxVoting", vote_sigma=0.1),
        _nms("WeightedBoxesFusion", iou_thresh=0.3),
    ),
    "IoUBranch": (_nms("IoUGuidedNMS", beside=(_iou_branch(),)),),
    "KLLoss": (_nms("VarianceVoting", beside=(_loss(_BOX_LOSS, "KLLoss"),)),),
    "two branches": (_nms("NMS", ", joint", beside=(_TWO_BRANCHES,), joint=True),),
    "RetinaNet": (_nms("SoftNMS", " (RetinaNet)", f"{_BALANCED}.RETINANET.NMS", RETINANET),),
}

# What a seat has no place for, whatever stands at the others.
REFUSED_ALONE: Tuple[Choice, ...] = (
    _sampler("HardRatioSampler", "MODEL.BALANCED.RPN.SAMPLER", " (RPN)"),
    Choice("DynamicSmoothL1 (RPN)", {**_IN_RPN, f"{_RPN_LOSS}.NAME": "DynamicSmoothL1"}, ("RPN",)),
    Choice("DynamicSmoothL1 (RetinaNet)", {f"{_RETINANET_LOSS}.NAME": "DynamicSmoothL1"}, ("RetinaNet",), RETINANET),
    _loss(_RPN_LOSS, "KLLoss"),
    _loss(_RPN_CLS_LOSS, "SeesawLoss"),
    _loss(_RPN_CLS_LOSS, "ClassBalanced"),
    _loss(_RPN_CLS_LOSS, "EQLv2", " with objectness"),
    _loss(_RETINANET_CLS_LOSS, "SeesawLoss", " (RetinaNet)", RETINANET),
    Choice("EQLv2 in detectron2's RPN", {**_PLAIN_RPN, f"{_RPN_CLS_LOSS}.NAME": "EQLv2"}, (_RPN_CLS_LOSS,)),
    Choice("BalancedL1 in detectron2's RPN", {**_PLAIN_RPN, f"{_RPN_LOSS}.NAME": "BalancedL1"}, (_RPN_LOSS,)),
    Choice("Buckets with a loss of deltas", {f"{_BALANCED}.BOX_CODER.NAME": "Buckets"}, ("BOX_CODER",)),
    Choice(
        "SideAwareHead without buckets",
        {"MODEL.ROI_BOX_HEAD.NAME": "SideAwareHead", "MODEL.ROI_BOX_HEAD.NUM_CONV": 1},
        ("BOX_CODER",),
    ),
    Choice(
        "box weights of another box coder",
        {**_BUCKETS.settings, "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0)},
        ("BOX_CODER",),
    ),
    _loss(_BOX_LOSS, "BucketLoss", " without buckets"),
    _loss(_RPN_LOSS, "BucketLoss"),
    _loss(_RETINANET_LOSS, "BucketLoss", " (RetinaNet)", RETINANET),
    Choice("InterleavedMasks without masks", {f"{_BALANCED}.MASKS.NAME": "InterleavedMasks"}, ("MASKS",)),
    Choice(
        "InterleavedMasks with another mask head",
        {**_MASKS, f"{_BALANCED}.MASKS.NAME": "InterleavedMasks"},
        ("FlowMaskHead",),
    ),
    Choice(
        "FlowMaskHead without InterleavedMasks",
        {**_MASKS, "MODEL.ROI_MASK_HEAD.NAME": "FlowMaskHead"},
        ("FlowMaskHead",),
    ),
    Choice("a mask pooler without masks", {f"{_BALANCED}.MASK_POOLER.NAME": "GenericROIPooler"}, ("MASK_POOLER",)),
    Choice("MaskIoUHead without masks", {f"{_BALANCED}.MASK_IOU_HEAD.NAME": "MaskIoUHead"}, ("MASK_IOU_HEAD",)),
    Choice(
        "scores of the mean mask without a mask IoU head",
        {
            **_ANY_MASKS,
            "MODEL.ROI_MASK_HEAD.NAME": "FlowMaskHead",
            f"{_BALANCED}.MASKS.NAME": "InterleavedMasks",
            f"{_BALANCED}.MASKS.SCORED": "mean",
        },
        ("MASK_IOU_HEAD",),
    ),
    _iou_branch(", negatives without an IoU predictor", predict_iou=False, iou_negatives=True),
    _iou_branch(
        ", intervals without generated boxes", regressor_samples="proposals", iou_samples="proposals", num_intervals=8
    ),
    Choice(
        "RGA on masks without masks",
        {"SOLVER.GRADIENT_ANNEALING.INITIAL": 7.0, "SOLVER.GRADIENT_ANNEALING.PARAMETERS": "box_and_mask"},
        ("box_and_mask",),
    ),
    Choice("merge of a single stage", {f"{_BALANCED}.STAGES.MERGE": "logit"}, ("SingleStage",)),
    Choice(
        "given proposals and an RPN",
        {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"},
        ("LOAD_PROPOSALS",),
        FAST,
    ),
    Choice("Fast R-CNN without given proposals", {"MODEL.LOAD_PROPOSALS": False}, ("LOAD_PROPOSALS",), FAST),
    Choice(
        "a share of positives that every branch overrides",
        {
            "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.5,
            f"{_BALANCED}.BRANCHES": [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}],
        },
        ("BRANCHES",),
    ),
    Choice(
        "RetinaNet on a pyramid of the R-CNN's levels",
        {"MODEL.BACKBONE.NAME": "build_resnet_balanced_fpn_backbone"},
        ("IN_FEATURES",),
        RETINANET,
    ),
    Choice(
        "a first threshold of the stages that is not the matcher's",
        {f"{_BALANCED}.STAGES.NAME": "RecursiveStages", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.7, 0.6, 0.5]},
        ("IOU_THRESHOLDS",),
    ),
    Choice(
        "two focal losses",
        {f"{_RETINANET_CLS_LOSS}.NAME": "QualityFocal", "MODEL.RETINANET.FOCAL_LOSS_ALPHA": 0.5},
        ("FOCAL_LOSS_ALPHA",),
        RETINANET,
    ),
    Choice(
        "two betas",
        {f"{_BOX_LOSS}.NAME": "BalancedL1", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0},
        ("SMOOTH_L1_BETA",),
    ),
    Choice(
        "two box losses",
        {f"{_BOX_LOSS}.NAME": "BalancedL1", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou"},
        ("BBOX_REG_LOSS_TYPE",),
    ),
    Choice(
        "two box losses (RPN)",
        {**_IN_RPN, f"{_RPN_LOSS}.NAME": "BalancedL1", "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou"},
        ("BBOX_REG_LOSS_TYPE",),
    ),
    Choice("settings of BalancedFPN on another pyramid", {f"{_BALANCED}.FPN.REFINE_LEVEL": 1}, ("BACKBONE.NAME",)),
    Choice("a branch for inference that is not there", {f"{_BALANCED}.TEST_BRANCHES": [1]}, ("TEST_BRANCHES",)),
    Choice(
        "box weights of a cascade for the one head of a loop",
        {f"{_BALANCED}.STAGES.NAME": "RecursiveStages", _CASCADE_WEIGHTS: [[10.0, 10.0, 5.0, 5.0]] * 3},
        ("RecursiveStages",),
    ),
    Choice(
        "fewer box weights than stages",
        {f"{_BALANCED}.STAGES.NAME": "CascadeStages", _CASCADE_WEIGHTS: [[10.0, 10.0, 5.0, 5.0]]},
        ("IOUS",),
    ),
    Choice(
        "two number formats of training",
        {"SOLVER.AMP.ENABLED": True, "MODEL.LAYERS.PRECISION": "bfloat16"},
        ("SOLVER.AMP.ENABLED",),
    ),
    _nms("IoUGuidedNMS", " without an IoU branch"),
    _nms("VarianceVoting", " without variances"),
    _nms("NMS", " of one branch, joint", joint=True),
    _nms("VarianceVoting", " (RetinaNet)", f"{_BALANCED}.RETINANET.NMS", RETINANET),
    Choice("precise batch statistics", {"TEST.PRECISE_BN.ENABLED": True}, ("PRECISE_BN",)),
    Choice("expected results", {"TEST.EXPECTED_RESULTS": [["bbox", "AP", 38.5, 0.2]]}, ("EXPECTED_RESULTS",)),
    Choice("a reference number of processes", {"SOLVER.REFERENCE_WORLD_SIZE": 8}, ("REFERENCE_WORLD_SIZE",)),
    Choice("another sampler of images", {"DATALOADER.SAMPLER_TRAIN": "RandomSubset"}, ("SAMPLER_TRAIN",)),
)


def all_choices():
    """Every choice of the pairs, in the order of the seats."""
    return [choice for choices in SEATS.values() for choice in choices]


def alike():
    """``(choice, the one whose pairs are its pairs)`` of every other choice."""
    by_name = {choice.name: choice for choice in all_choices()}
    return [(choice, by_name[name]) for name, choices in ALIKE.items() for choice in choices]


def pairs():
    """Every two choices that do not stand at the same seat, the earlier seat's first."""
    for (_, first), (_, second) in itertools.combinations(SEATS.items(), 2):
        yield from itertools.product(first, second)


def settings_of(*chosen):
    """``{key: value}`` of several choices together, in the order of the seats."""
    names = {choice.name.split(" with ")[0] for choice in chosen}
    settings = {}
    for choice in chosen:
        settings.update(next((choice.instead[n] for n in names if n in choice.instead), choice.settings))
    return settings


def base_of(*chosen):
    """The config that they are set on."""
    return os.path.join(QUICK, next((choice.base for choice in chosen if choice.base), FASTER))
