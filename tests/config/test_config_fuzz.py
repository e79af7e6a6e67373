"""Configs and overrides that are wrong in every way: each is a checked config, or an error that names the culprit.

490 inputs: 120 yaml files with one to three settings replaced, 80 with words and bytes changed, 120 command lines of a
yaml config, 90 of a LazyConfig, and 80 components with any arguments.
"""

import copy
import random

import pytest
import yaml
from detectron2.layers import ShapeSpec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from d2_balanced.config import load_lazy
from d2_balanced.config.check_yacs import spec_registries
from d2_balanced.config.defaults import get_balanced_cfg
from d2_balanced.config.yacs import flatten
from d2_balanced.engine.from_lazy import LazyExperiment
from d2_balanced.engine.from_yacs import YacsExperiment
from d2_balanced.engine.open import open_experiment
from d2_balanced.modeling.spec import build_component, signature_parameters
from d2_balanced.utils.errors import UsageError

BOUNDED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SPECIAL = [
    float("nan"), float("inf"), -float("inf"), 10**30, 10**400, 1e30, -1e-30, 2**31, -1, 0, 1, 2, 3, 0.5, 1.5, True,
    None, "", "x", "none", "???", "${x}", "${", "a.b", "../x", "Jörg", "\ud7ff", "1e-3", "RandomSampler",
    "CascadeStages", [], [[]], [[], 1], {}, {"x": 1}, {"NAME": "x"}, {"NAME": 3}, {3: 4}, [3], [0.5, "x"], [{}],
    [{"SAMPLER": 1}], "nan", [float("nan")], [10**400], (1, 2), ["a", "b"], "[", "{a: ", "!!int x", "0x" + "f" * 5000,
    "(" * 200, "1j", "b''",
]  # fmt: skip
VALUES = st.one_of(st.sampled_from(SPECIAL), st.integers(-100, 100), st.floats(), st.text(max_size=3))
# What names code to run or a place to go to is not for a fuzz test.
KEYS = sorted(key for key in flatten(get_balanced_cfg()) if key not in ("IMPORTS", "MODEL.DEVICE"))
SPECS = {key: registry for key, registry in spec_registries().items()}
YAML = """
MODEL: {ROI_HEADS: {NAME: BalancedROIHeads, IOU_THRESHOLDS: [0.4]}, MASK_ON: True}
SOLVER: {STEPS: [10, 20], BASE_LR: 0.01, CLIP_GRADIENTS: {CLIP_VALUE: 1.0}}
"""
PIECES = [b"*anchor", b"&anchor", b"<<: ", b"[", b"{", b"}", b"- ", b"? ", b": ", b"\t", b"\0", b"\xff", b"!!int ",
          b"\n", b"!!python/object/apply:os.getcwd []", b"!!timestamp ", b"|", b"%YAML", b"---\n", b"'", b"_BASE_: ",
          b"2020-99-99"]  # fmt: skip
LAZY = """
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.layers import ShapeSpec
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler
from d2_balanced.config import data_defaults, train_defaults
from d2_balanced.modeling.matcher import DynamicMatcher
from d2_balanced.modeling.sampling import IoUBalancedSampler

model = dict(
    head=L(FastRCNNConvFCHead)(input_shape=L(ShapeSpec)(channels=4, height=2, width=2), conv_dims=[], fc_dims=[8, 8]),
    sampler=L(IoUBalancedSampler)(num_bins=3, neg_pos_ub="${..bound}"),
    matcher=L(DynamicMatcher)(thresholds=[0.5], labels=[0, 1], period=10),
    bound=3.0,
    num_classes=3,
)
dataloader = dict(train=dict(total_batch_size=4, dataset=dict(names="a")), test=None)
optimizer = L(torch.optim.SGD)(params=[], lr=0.1, momentum=0.9)
cosine = L(CosineParamScheduler)(start_value=1, end_value=0)
lr_multiplier = L(WarmupParamScheduler)(scheduler=cosine, warmup_factor=0.1, warmup_length=0.1)
train = train_defaults()
data = data_defaults()
"""
LAZY_KEYS = """
    model model.head model.head.fc_dims model.head.fc_dims[0] model.head.input_shape.channels model.head._target_
    model.sampler model.sampler.num_bins model.sampler.neg_pos_ub model.sampler.floor_thr model.sampler._target_
    model.matcher.thresholds model.matcher.period model.matcher.labels.5 model.bound model.num_classes model.no_such
    dataloader dataloader.train.total_batch_size dataloader.train.dataset.names optimizer optimizer.lr
    optimizer.momentum optimizer.nesterov optimizer._target_ lr_multiplier.warmup_length
    lr_multiplier.scheduler.end_value train train.max_iter train.seed train.amp train.amp.enabled
    train.checkpointer.period train.output_dir train.eval_period
    train.gradient_annealing.initial train.gradient_annealing.total train.record_imbalance data data.strict no_such
""".split()
CONTEXTS = {
    "thresholds": [0.5], "labels": [0, 1], "allow_low_quality_matches": False, "ious": (0.5, 0.6, 0.7), "channels": 8,
    "input_shape": ShapeSpec(channels=8, height=4, width=4), "num_classes": 3, "output_size": 4, "scales": (0.25,),
    "sampling_ratio": 0, "pooler_type": "ROIAlignV2",
}  # fmt: skip


def outcome(build, culprits):
    """``"accepted"`` or ``"refused"``; whatever else ``build`` raises fails, and an error without a culprit, too."""
    try:
        build()
    except UsageError as error:
        said = str(error)
        assert any(culprit and culprit.lower() in said.lower() for culprit in culprits), (said, culprits)
        assert len(said) < 3000
        return "refused"
    return "accepted"


def parts(keys):
    """A key, and the sections that it is in, but for the outermost: an error may be about all of one."""
    split = [key.split(".") for key in keys]
    return [".".join(names[:n]) for names in split for n in range(len(names), min(len(names), 2) - 1, -1)]


@pytest.fixture(scope="module", autouse=True)
def both_outcomes():
    """A test with one outcome alone would show little."""
    seen = []
    yield seen.append
    assert {"accepted", "refused"} <= set(seen)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
@settings(max_examples=120, **BOUNDED)
def test_settings_in_a_file(tmp_path_factory, both_outcomes, changes):
    content = {}
    for key, value in changes.items():
        node = content
        for part in key.split(".")[:-1]:
            node = node.setdefault(part, {})
        if isinstance(node, dict):
            node[key.split(".")[-1]] = value
    path = str(tmp_path_factory.getbasetemp() / "settings.yaml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(copy.deepcopy(content), file, allow_unicode=True)
    both_outcomes(outcome(lambda: open_experiment(path), [*parts(changes), path]))


@given(
    st.lists(
        st.tuples(st.integers(0, len(YAML)), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=3
    )
)
@settings(max_examples=80, **BOUNDED)
def test_words_and_bytes_of_a_file(tmp_path_factory, both_outcomes, changes):
    text = YAML.encode()
    for start, length, piece in changes:
        text = text[:start] + piece + text[start + length :]
    path = str(tmp_path_factory.getbasetemp() / "bytes.yaml")
    with open(path, "wb") as file:
        file.write(text)
    both_outcomes(outcome(lambda: open_experiment(path), [path, *parts(KEYS)]))


def word(value):
    """As it stands on a command line."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
    return text if isinstance(value, str) else text.strip().removesuffix("...").strip()


@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3), st.booleans())
@settings(max_examples=120, **BOUNDED)
def test_command_lines_of_yaml(both_outcomes, changes, balanced):
    words = [each for key, value in changes for each in (key, word(value))]
    words += ["MODEL.ROI_HEADS.NAME", "BalancedROIHeads"] * balanced
    culprits = [*parts(key for key, _ in changes), "MODEL.ROI_HEADS.NAME"]
    both_outcomes(outcome(lambda: YacsExperiment.from_config(get_balanced_cfg(), words), culprits))


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    path = tmp_path_factory.mktemp("lazy") / "config.py"
    path.write_text(LAZY)
    return load_lazy(str(path))


@given(changes=st.lists(st.tuples(st.sampled_from(LAZY_KEYS), VALUES), min_size=1, max_size=2))
@settings(max_examples=90, **BOUNDED)
def test_command_lines_of_lazy_config(lazy, both_outcomes, changes):
    words = [f"{key}={word(value)}" for key, value in changes]
    culprits = [*parts(key.replace("[0]", ".0") for key, _ in changes), *words]
    both_outcomes(outcome(lambda: LazyExperiment.from_config(copy.deepcopy(lazy), words), culprits))


@given(st.sampled_from(sorted(SPECS)), st.integers(0, 2**31), VALUES)
@settings(max_examples=80, **BOUNDED)
def test_components(both_outcomes, key, seed, value):
    """Whatever a component is given for an argument: it is built, or says which argument it is."""
    draw = random.Random(seed)
    name, target = draw.choice(sorted(SPECS[key]))
    own = sorted(set(signature_parameters(target)) - set(CONTEXTS)) or ["no_such"]
    argument = draw.choice(own)
    node = {"NAME": name, argument.upper(): value}

    assume(value != 2**31 or argument not in ("conv_dim", "kernel_size", "reduction"))  # weights that fill the memory
    both_outcomes(outcome(lambda: build_component(SPECS[key], node, key, **CONTEXTS), [key]))
