"""The check of a complete yacs config, and the description of what was changed."""

import pickle

import pytest
from detectron2.modeling import ROI_HEADS_REGISTRY

from d2_balanced.config import (
    ConfigError,
    changed_settings,
    check_config,
    describe_changes,
    get_balanced_cfg,
    merge_overrides,
)
from d2_balanced.modeling.roi_heads.balanced_roi_heads import BalancedROIHeads
from d2_balanced.utils.errors import Refusal

BALANCED = ("MODEL.ROI_HEADS.NAME", "BalancedROIHeads")
RPN = ("MODEL.PROPOSAL_GENERATOR.NAME", "BalancedRPN")


def config(*opts):
    cfg = get_balanced_cfg()
    merge_overrides(cfg, opts)
    return cfg


@pytest.mark.parametrize(
    "opts",
    [
        (),
        BALANCED,
        (*BALANCED, "MODEL.BALANCED.SAMPLER", "{NAME: IoUBalancedSampler, NUM_BINS: 4}"),
        (*BALANCED, "MODEL.BALANCED.BRANCHES", "[{POSITIVE_FRACTION: 0.5}, {SAMPLER: {NAME: RandomSampler}}]"),
        (*BALANCED, *RPN, "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB", "5.0"),
        ("MODEL.META_ARCHITECTURE", "ProposalNetwork", *RPN, "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB", "5.0"),
        ("MODEL.META_ARCHITECTURE", "BalancedRetinaNet", "MODEL.BALANCED.RETINANET.BOX_LOSS.NAME", "SmoothL1"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "MODEL.LOAD_PROPOSALS", "True"),
    ],
)
def test_good_configs_pass(opts):
    check_config(config(*opts))


def test_attributes_set_by_mistake():
    cfg = config()
    cfg.MODEL_WEIGHTS = "x"
    with pytest.raises(ConfigError, match=r"MODEL_WEIGHTS.*nothing reads it.*Did you mean MODEL\.WEIGHTS"):
        check_config(cfg)
    cfg = config()
    cfg.SOLVER.MAX_ITR = 3
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITR.*Did you mean SOLVER\.MAX_ITER"):
        check_config(cfg)


def test_attribute_of_another_type():
    cfg = config()
    cfg.SOLVER.MAX_ITER = "90k"
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER: expected int.*got str '90k'"):
        check_config(cfg)


def test_keys_of_another_project_are_known_by_its_defaults():
    def defaults():
        cfg = config()
        cfg.MY_PROJECT_SETTING = 3
        return cfg

    cfg = defaults()
    cfg.MY_PROJECT_SETTING = 4
    check_config(cfg, defaults())
    with pytest.raises(ConfigError):
        check_config(cfg)


@pytest.mark.parametrize(
    "opts, parts",
    [
        # names
        (("MODEL.ROI_HEADS.NAME", "BalancedROIHead"), ["MODEL.ROI_HEADS.NAME", "Did you mean BalancedROIHeads"]),
        (("MODEL.META_ARCHITECTURE", "RetinaNett"), ["MODEL.META_ARCHITECTURE", "RetinaNet"]),
        (
            (*BALANCED, "MODEL.BALANCED.SAMPLER.NAME", "IouBalancedSampler"),
            ["MODEL.BALANCED.SAMPLER.NAME", "'IouBalancedSampler'", "Did you mean IoUBalancedSampler"],
        ),
        (
            (*BALANCED, "MODEL.BALANCED.STAGES.NAME", "Cascade"),
            ["MODEL.BALANCED.STAGES.NAME", "registered are", "CascadeStages"],
        ),
        (("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFC"), ["MODEL.ROI_BOX_HEAD.NAME", "mean FastRCNNConvFCHead"]),
        (("SOLVER.ACCUMULATE", "0"), ["SOLVER.ACCUMULATE", "must be 1 or more, got 0"]),
        (("TEST.PATIENCE", "-1"), ["TEST.PATIENCE", "must be 0 or more, got -1"]),
        (("TEST.DETECTIONS_PER_IMAGE", "0"), ["TEST.DETECTIONS_PER_IMAGE", "must be 1 or more or -1, got 0"]),
        # arguments
        (
            (*BALANCED, "MODEL.BALANCED.SAMPLER", "{NAME: IoUBalancedSampler, NUM_BIN: 4}"),
            ["MODEL.BALANCED.SAMPLER.NUM_BIN", "no argument", "Did you mean NUM_BINS"],
        ),
        (
            (*BALANCED, "MODEL.BALANCED.SAMPLER", "{NAME: IoUBalancedSampler, NUM_BINS: many}"),
            ["MODEL.BALANCED.SAMPLER.NUM_BINS", "expected int", "got str 'many'"],
        ),
        # branches
        ((*BALANCED, "MODEL.BALANCED.BRANCHES", "[3]"), ["MODEL.BALANCED.BRANCHES[0]", "expected a mapping"]),
        (
            (*BALANCED, "MODEL.BALANCED.BRANCHES", "[{}, {POSITIVE_FRACTON: 0.5}]"),
            ["MODEL.BALANCED.BRANCHES[1].POSITIVE_FRACTON", "Did you mean POSITIVE_FRACTION"],
        ),
        (
            (*BALANCED, "MODEL.BALANCED.BRANCHES", "[{SAMPLER: {NAME: Sampler}}]"),
            ["MODEL.BALANCED.BRANCHES[0].SAMPLER.NAME", "'Sampler'"],
        ),
    ],
)
def test_mistakes_are_named(opts, parts):
    with pytest.raises(ConfigError) as error:
        check_config(config(*opts))
    for part in parts:
        assert part in str(error.value)


SAMPLER = ("MODEL.BALANCED.SAMPLER.NAME", "IoUBalancedSampler")


@pytest.mark.parametrize(
    "opts, setting, chooser",
    [
        (("MODEL.ROI_HEADS.NAME", "StandardROIHeads", *SAMPLER), SAMPLER[0], "MODEL.ROI_HEADS.NAME: StandardROIHeads"),
        (SAMPLER, SAMPLER[0], "MODEL.ROI_HEADS.NAME: Res5ROIHeads"),
        (
            (*BALANCED, "MODEL.META_ARCHITECTURE", "RetinaNet", *SAMPLER),
            SAMPLER[0],
            "MODEL.META_ARCHITECTURE: RetinaNet",
        ),
        (
            (*BALANCED, "MODEL.META_ARCHITECTURE", "BalancedRetinaNet", "MODEL.BALANCED.STAGES.NAME", "CascadeStages"),
            "MODEL.BALANCED.STAGES.NAME",
            "MODEL.META_ARCHITECTURE: BalancedRetinaNet",
        ),
        (
            (*BALANCED, "MODEL.META_ARCHITECTURE", "ProposalNetwork", *SAMPLER),
            SAMPLER[0],
            "MODEL.META_ARCHITECTURE: ProposalNetwork",
        ),
        (
            (*BALANCED, "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB", "5.0"),
            "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB",
            "MODEL.PROPOSAL_GENERATOR.NAME: RPN",
        ),
        (
            ("MODEL.META_ARCHITECTURE", "RetinaNet", *RPN, "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB", "5.0"),
            "MODEL.BALANCED.RPN.SAMPLER.NEG_POS_UB",
            "MODEL.META_ARCHITECTURE: RetinaNet",
        ),
        (
            ("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BALANCED.RETINANET.BOX_LOSS.BETA", "0.5"),
            "MODEL.BALANCED.RETINANET.BOX_LOSS.BETA",
            "MODEL.META_ARCHITECTURE: RetinaNet",
        ),
        (
            (*BALANCED, "MODEL.BALANCED.FPN.REFINE_LEVEL", "2"),
            "MODEL.BALANCED.FPN.REFINE_LEVEL",
            "MODEL.BACKBONE.NAME: build_resnet_backbone",
        ),
    ],
)
def test_ignored_settings_name_both_sides(opts, setting, chooser):
    with pytest.raises(ConfigError) as error:
        check_config(config(*opts))
    assert setting in str(error.value) and chooser in str(error.value)


def test_a_refusal_has_its_two_sides_also_in_another_process():
    with pytest.raises(Refusal) as error:
        check_config(config(*SAMPLER))
    sent = pickle.loads(pickle.dumps(error.value))
    assert str(sent) == str(error.value) and (sent.other, sent.remedy) == (error.value.other, error.value.remedy)
    assert error.value.one == f"{SAMPLER[0]}: {SAMPLER[1]}" and error.value.other == "MODEL.ROI_HEADS.NAME: Res5ROIHeads"
    assert str(error.value).startswith(f"{error.value.one} does not go with {error.value.other}, because ")


def test_heads_derived_from_ours_read_our_settings():
    class MyBalancedHeads(BalancedROIHeads):
        pass

    ROI_HEADS_REGISTRY.register(MyBalancedHeads)
    try:
        check_config(config("MODEL.ROI_HEADS.NAME", "MyBalancedHeads", *SAMPLER))
    finally:
        del ROI_HEADS_REGISTRY._obj_map["MyBalancedHeads"]


def test_only_changes_are_described():
    cfg = config("SOLVER.MAX_ITER", "7", "MODEL.BALANCED.SAMPLER.NAME", "IoUBalancedSampler")
    cfg.MODEL.BALANCED.SAMPLER.NUM_BINS = 4
    assert changed_settings(cfg) == {
        "SOLVER.MAX_ITER": 7,
        "MODEL.BALANCED.SAMPLER.NAME": "IoUBalancedSampler",
        "MODEL.BALANCED.SAMPLER.NUM_BINS": 4,
    }
    assert describe_changes(cfg).splitlines() == [
        "MODEL.BALANCED.SAMPLER.NAME: 'IoUBalancedSampler'",
        "MODEL.BALANCED.SAMPLER.NUM_BINS: 4",
        "SOLVER.MAX_ITER: 7",
    ]
    assert describe_changes(config()) == "(all settings at their defaults)"
