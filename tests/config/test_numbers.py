"""Numbers that mean nothing or cannot be used are refused with their key: in components, in yacs and in LazyConfig."""

import math
import os

import pytest
from detectron2.config import CfgNode

from d2_balanced.config import ConfigError, check_config, load_lazy, load_yaml
from d2_balanced.config.check_yacs import spec_registries
from d2_balanced.config.ranges import YACS
from d2_balanced.config.yacs import flatten
from d2_balanced.config.defaults import get_balanced_cfg
from d2_balanced.engine.schedule import Schedule
from d2_balanced.modeling.spec import call_arguments, check_spec, signature_parameters
from d2_balanced.utils.numbers import Extended, Range, is_number, require
from paths import ROOT

QUICK = os.path.join(ROOT, "configs", "quick")
BRANCHES = "MODEL.BALANCED.BRANCHES"
CASCADE = ["MODEL.BALANCED.STAGES.NAME", "CascadeStages"]
ROI_HEADS = ["MODEL.ROI_HEADS.NAME", "BalancedROIHeads"]
NOT_FINITE = [math.nan, math.inf, -math.inf, 10**30]


@pytest.mark.parametrize(
    "limits, allowed, refused",
    [
        ({}, [-7.5, 0], [math.nan, math.inf, 10**400, "1", True, None, [1], 1j]),
        ({"above": 0}, [1e-9], [0, -1, math.nan]),
        ({"at_least": 0, "below": 1}, [0, 0.5], [1, -0.1]),
        ({"at_least": 1, "at_most": 3, "integer": True}, [1, 3], [0, 4, 2.0, 1.5, math.inf, True]),
        ({"above": 0, "also": (-1, math.inf)}, [1, -1, math.inf], [0, -2, -math.inf]),
    ],
)
def test_ranges(limits, allowed, refused):
    assert [require("Owner", "x", value, **limits) for value in allowed] == allowed
    for value in refused:
        with pytest.raises(ValueError, match="^Owner: x must be .*, got "):
            require("Owner", "x", value, **limits)


@pytest.mark.parametrize(
    "limits, value, words",
    [
        ({"at_least": 1, "integer": True}, 0, "1 or more, got 0"),
        ({"at_least": 1, "integer": True}, 1.5, "a whole number, 1 or more, got 1.5"),
        ({"at_least": 0, "at_most": 1}, math.nan, "a finite number, from 0 to 1, got nan"),
        ({"above": 0, "below": 1, "also": (-1,)}, 2, "above 0 and below 1 or -1, got 2"),
        pytest.param({"integer": True}, 16**5000, "a whole number below .*, got a number of thousands of .*", id="long"),
    ],
)
def test_what_a_message_says(limits, value, words):
    with pytest.raises(ValueError, match=f"float: x must be {words}$"):
        require(0.5, "x", value, **limits)


def numeric_arguments():
    """``(key, registry, component, argument)`` of everything registered that has a number as its default."""
    for key, registry in spec_registries().items():
        for name, target in registry:
            for argument, parameter in signature_parameters(target).items():
                if is_number(parameter.default) and parameter.annotation not in (Extended, "Extended"):
                    yield key, registry, name, argument.upper()


@pytest.mark.parametrize("value", NOT_FINITE)
def test_every_component_refuses_what_is_not_finite(value):
    """Those of today and those that come: none has to ask for it."""
    asked = list(numeric_arguments())
    assert len(asked) > 40
    for key, registry, name, argument in asked:
        with pytest.raises(ConfigError, match=rf"{key}\.{argument}: (must be|expected)"):
            check_spec(registry, CfgNode({"NAME": name, argument: value}, new_allowed=True), key)


def test_infinity_is_taken_where_it_has_a_meaning():
    """By the annotation, or by a default that is infinite; what is out of range is left to the constructor."""

    def component(slope: Extended = 1.0, limit: float = math.inf, weight: float = 1.0):
        pass

    node = {"SLOPE": -math.inf, "LIMIT": math.inf}
    assert call_arguments(component, node, "KEY") == {"slope": -math.inf, "limit": math.inf}
    with pytest.raises(ConfigError, match="KEY.WEIGHT: must be a finite number, got inf"):
        call_arguments(component, {"WEIGHT": math.inf}, "KEY")


@pytest.mark.parametrize("value", NOT_FINITE + [-(10**30)])
@pytest.mark.parametrize(
    "key", ["MODEL.BALANCED.FPN.REFINE_LEVEL", "SOLVER.GRADIENT_ANNEALING.TOTAL", "SOLVER.BASE_LR"]
)
def test_every_setting_refuses_what_is_not_finite(key, value):
    cfg = get_balanced_cfg()
    node, name = cfg, key.rsplit(".", 1)
    for part in name[0].split("."):
        node = node[part]
    node[name[1]] = value
    with pytest.raises(ConfigError, match=f"^{key}: must be a"):
        check_config(cfg)


def test_the_defaults_are_in_range():
    defaults = flatten(get_balanced_cfg())
    assert not set(YACS) - set(defaults), "keys that there are not"
    check_config(get_balanced_cfg())


@pytest.mark.parametrize(
    "key, value",
    [
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "-1.0"),
        ("SOLVER.BASE_LR", ".nan"),
        ("SOLVER.BASE_LR", "-0.1"),
        ("SOLVER.MOMENTUM", "1.5"),
        ("SOLVER.WEIGHT_DECAY_BIAS", "-1"),
        ("SOLVER.IMS_PER_BATCH", "0"),
        ("SOLVER.STEPS", "[-3]"),
        ("SOLVER.MAX_ITER", "10000000000"),
        ("SEED", "10000000000"),
        ("MODEL.ROI_BOX_HEAD.FC_DIM", "0"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "-1.0"),
        ("MODEL.RPN.LOSS_WEIGHT", ".inf"),
        ("MODEL.RPN.NMS_THRESH", "1.5"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "-0.1"),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "50"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [0]]"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[.nan]]"),
        ("MODEL.FPN.OUT_CHANNELS", "0"),
        ("MODEL.PIXEL_STD", "[1.0, 0.0, 1.0]"),
        ("INPUT.MIN_SIZE_TRAIN", "(0,)"),
        ("INPUT.CROP.SIZE", "[.nan, 0.5]"),
        ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', .nan, 1]]"),
    ],
)
def test_detectron2_s_settings(tmp_path, key, value):
    """On the command line and in a file: the key and the number are named."""
    with pytest.raises(ConfigError, match=rf"^{key}.*: must be .*, got -?[\d.einfa]+\.$"):
        check_config(with_settings(tmp_path, [key, value]))


@pytest.mark.parametrize(
    "key, value",
    [
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", ".inf"),  # the maximum norm
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.0"),
        ("SOLVER.BASE_LR", "0.0"),
        ("MODEL.RPN.CONV_DIMS", "[-1, -1]"),
        ("INPUT.MIN_SIZE_TEST", "0"),  # no resizing
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    ],
)
def test_what_has_a_meaning_stays_allowed(tmp_path, key, value):
    check_config(with_settings(tmp_path, [key, value]))


def with_settings(tmp_path, words):
    (tmp_path / "empty.yaml").write_text("")
    return load_yaml(str(tmp_path / "empty.yaml"), words)


@pytest.mark.parametrize(
    "words, culprit",
    [
        ([BRANCHES, "[{SAMPLER: x}, {}]"], r"BRANCHES\[0\].SAMPLER: expected a mapping"),
        ([BRANCHES, "[{BATCH_SIZE_PER_IMAGE: 1.5}]"], r"BRANCHES\[0\].BATCH_SIZE_PER_IMAGE: expected int"),
        ([BRANCHES, "[{}, {POSITIVE_FRACTION: .nan}]"], r"BRANCHES\[1\].POSITIVE_FRACTION: must be"),
        ([BRANCHES, "[{3: 4}]"], r"BRANCHES\[0\].3: a branch has no such setting"),
        (
            [BRANCHES, "[{SAMPLER: {NAME: RandomSampler, NEG_POS_UB: .inf}}]"],
            r"BRANCHES\[0\].SAMPLER.NEG_POS_UB: must be a finite number",
        ),
        ([*CASCADE, "MODEL.BALANCED.STAGES.NUM_TEST", "2.5"], "STAGES.NUM_TEST: expected int"),
        ([*CASCADE, "MODEL.BALANCED.STAGES.LOSS_WEIGHTS", "3"], "STAGES.LOSS_WEIGHTS: expected"),
        (["MODEL.BALANCED.MATCHER.PERIOD", "2020-01-01"], "MATCHER.PERIOD on the command line: a config holds no date"),
        (["MODEL.BALANCED.MATCHER.PERIOD", "!!python/name:os.system ''"], "MATCHER.PERIOD .*: a config holds no"),
    ],
)
def test_settings_of_components(tmp_path, words, culprit):
    with pytest.raises(ConfigError, match=f"^MODEL.BALANCED.{culprit}"):
        check_config(with_settings(tmp_path, [*ROI_HEADS, *words]))


@pytest.fixture(scope="module")
def lazy_config():
    return os.path.join(QUICK, "faster_rcnn_R_18_FPN.py")


@pytest.mark.parametrize(
    "override, key",
    [
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.momentum=1.5", "optimizer.momentum"),
        ("train.max_iter=10000000000", "train.max_iter"),
        ("train.seed=5000000000", "train.seed"),
        ("model.roi_heads.positive_fraction=0.0", "model.roi_heads.positive_fraction"),
        ("model.roi_heads.box_predictor.test_nms_thresh=7.0", "model.roi_heads.box_predictor.test_nms_thresh"),
        ("model.proposal_generator.anchor_generator.sizes=[[32],[0],[1],[1],[1]]", "anchor_generator.sizes"),
        ("model.pixel_std=[1.0,0.0,1.0]", "model.pixel_std"),
        ("model.roi_heads.box_head.fc_dims=[0,64]", "model.roi_heads.box_head.fc_dims"),
        ("dataloader.train.total_batch_size=0", "dataloader.train.total_batch_size"),
        ("model.roi_heads.proposal_sampler.neg_pos_ub=inf", "model.roi_heads.proposal_sampler.neg_pos_ub"),
    ],
)
def test_lazy_settings(lazy_config, override, key):
    with pytest.raises(ConfigError, match=rf"{key}: must be .*, got -?[\d.einfa]+\.$"):
        load_lazy(lazy_config, [override])


def test_a_whole_configuration_in_range(lazy_config):
    load_lazy(lazy_config)


SCHEDULE = Schedule(
    lr=0.02, max_iter=90000, steps=(60000, 80000), warmup_iters=1000, eval_period=0, checkpoint_period=5000
)


def test_doubts_about_warm_up_and_steps():
    assert SCHEDULE.doubts() == []
    short = SCHEDULE._replace(max_iter=12)
    warmup, steps = short.doubts()
    assert "SOLVER.WARMUP_ITERS 1000" in warmup and "SOLVER.MAX_ITER 12" in warmup and "never reaches" in warmup
    assert "SOLVER.STEPS 60000, 80000" in steps and "does not fall" in steps
    assert SCHEDULE.for_epochs(2, 6.0).doubts() == [], "--epochs scales them"


@pytest.mark.parametrize("epochs", [math.inf, math.nan, 0.0, -1.0, 1e300])
def test_numbers_of_epochs(epochs):
    with pytest.raises(ConfigError, match="^--epochs "):
        SCHEDULE.for_epochs(epochs, 12.0)


@pytest.mark.parametrize("batch_size", [10**6, 16 * 129])
def test_scaling_beyond_reason(batch_size):
    with pytest.raises(ConfigError, match=f"--auto-scale-lr: the batch size goes from 16 to {batch_size}"):
        SCHEDULE.for_batch_size(16, batch_size)
    assert SCHEDULE.for_batch_size(16, 16 * 128).lr == 0.02 * 128


def test_the_range_of_a_setting_says_what_it_holds():
    assert Range(at_least=0, integer=True).holds(0) and not Range(at_least=0, integer=True).holds(0.0)
