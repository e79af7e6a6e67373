"""LazyConfig files and strict overrides: what is accepted, and what each mistake is told."""

import builtins

import pytest
from detectron2.config import instantiate

from d2_balanced.config import ConfigError, load_lazy
from d2_balanced.modeling.matcher import FixedMatcher
from d2_balanced.modeling.sampling import IoUBalancedSampler, RandomSampler

FILE = """
from detectron2.config import LazyCall as L
from torch import nn
from d2_balanced.config import data_defaults, train_defaults
from d2_balanced.modeling.matcher import FixedMatcher
from d2_balanced.modeling.sampling import IoUBalancedSampler

model = dict(
    conv=L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=3, bias="${..with_bias}"),
    sampler=L(IoUBalancedSampler)(num_bins=4),
    matcher=L(FixedMatcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=True),
    branch=None,
    heads=[dict(size=1), dict(size=2)],
    with_bias=True,
    fraction=0.25,
)
train = train_defaults()
data = data_defaults()
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(FILE)
    return str(file)


@pytest.mark.parametrize(
    "key, word, value",
    [
        ("train.max_iter", "10", 10),
        ("train.output_dir", "a/b", "a/b"),
        ("train.init_checkpoint", "''", ""),
        ("train.amp.enabled", "true", True),
        ("model.fraction", "1", 1.0),
        ("model.matcher.thresholds", "[0.4,0.6]", [0.4, 0.6]),
        ("model.heads.1.size", "5", 5),
        ("model.branch", "3", 3),
        ("model.sampler", "null", None),
        ("model.sampler", "None", None),
        ("model.conv.padding", "2", 2),  # an argument that the file leaves at its default
        ("model.conv.dtype", "null", None),
        ("model.conv.bias", "false", False),  # in place of an interpolation
        ("model.with_bias", "${model.sampler}", {"num_bins": 4, "_target_": IoUBalancedSampler}),
    ],
)
def test_values(path, key, word, value):
    node = load_lazy(path, [f"{key}={word}"])
    for part in key.split("."):
        node = node[int(part) if part.isdigit() else part]
    assert node == value and isinstance(node, bool) == isinstance(value, bool)
    assert isinstance(node, float) == isinstance(value, float)


def test_a_mapping_sets_its_keys_and_leaves_the_others(path):
    checkpointer = load_lazy(path, ["train.checkpointer={period: 7}"]).train.checkpointer
    assert checkpointer.period == 7 and "max_to_keep" in checkpointer


def test_another_component_starts_from_its_own_defaults(path):
    cfg = load_lazy(path, ["model.sampler.neg_pos_ub=3", "model.sampler._target_=RandomSampler"])  # in either order
    assert cfg.model.sampler == {"_target_": RandomSampler, "neg_pos_ub": 3}
    assert isinstance(instantiate(cfg.model.sampler), RandomSampler)


def test_the_same_component_keeps_its_arguments(path):
    assert load_lazy(path, ["model.sampler._target_=IoUBalancedSampler"]).model.sampler.num_bins == 4


def test_another_component_keeps_what_it_requires(path):
    cfg = load_lazy(path, ["model.sampler._target_=FixedMatcher", "model.sampler.thresholds=[0.5]"])
    assert cfg.model.sampler == {"_target_": FixedMatcher, "thresholds": [0.5]}
    matcher = "detectron2.modeling.matcher.Matcher"  # no component: what fits is kept
    assert load_lazy(path, [f"model.matcher._target_={matcher}"]).model.matcher.allow_low_quality_matches is True
    again = load_lazy(path, [f"model.matcher._target_={matcher}"])
    assert set(again.model.matcher) == {"_target_", "thresholds", "labels", "allow_low_quality_matches"}


def test_a_component_where_there_was_none(path):
    cfg = load_lazy(path, ["model.branch._target_=IoUBalancedSampler", "model.branch.num_bins=2"])
    assert instantiate(cfg.model.branch).num_bins == 2


@pytest.mark.parametrize(
    "override, parts",
    [
        # misspelt keys
        ("train.max_itr=3", ["train.max_itr", "Did you mean train.max_iter"]),
        ("trian.max_iter=3", ["trian.max_iter", "Did you mean train.max_iter"]),
        ("model.conv.in_chanels=3", ["model.conv.in_chanels", "Did you mean model.conv.in_channels"]),
        ("model.conv.pading=3", ["model.conv.pading", "Did you mean model.conv.padding"]),
        ("model.sampler.num_bin=3", ["model.sampler.num_bin", "Did you mean model.sampler.num_bins"]),
        ("train.checkpointer={priod: 3}", ["train.checkpointer.priod", "Did you mean train.checkpointer.period"]),
        ("model.branch.size=3", ["model.branch.size", "model.branch is None"]),
        ("model.with_bias.x=3", ["model.with_bias.x", "no settings inside"]),
        ("model.heads.2.size=3", ["model.heads.2.size", "list of 2", "'2'"]),
        ("model.heads.x=3", ["model.heads.x", "list of 2"]),
        # values of another type
        ("train.max_iter=x", ["train.max_iter", "expected int", "got str 'x'"]),
        ("train.max_iter=1.5", ["train.max_iter", "expected int", "got float 1.5"]),
        ("train.max_iter=true", ["train.max_iter", "expected int", "got bool"]),
        ("train.max_iter=null", ["train.max_iter", "got None"]),
        ("train.amp.enabled=1", ["train.amp.enabled", "expected bool", "got int 1"]),
        ("train.amp=true", ["train.amp", "expected a mapping"]),
        ("train.output_dir=3", ["train.output_dir", "expected str", "got int 3"]),
        ("model.matcher.thresholds=0.4", ["model.matcher.thresholds", "expected list", "got float 0.4"]),
        ("model.matcher.thresholds=[a]", ["model.matcher.thresholds", "['a']"]),
        ("model.conv.groups=x", ["model.conv.groups", "expected int", "got str 'x'"]),
        ("train.accumulate=0", ["train.accumulate", "must be 1 or more, got 0"]),
        ("train.checkpointer.period=0", ["train.checkpointer.period", "1 or more"]),
        # targets
        ("model.sampler._target_=RandomSampelr", ["'RandomSampelr'", "Did you mean RandomSampler"]),
        ("model.sampler._target_=no.such.Module", ["cannot import 'no.such.Module'"]),
        ("model.sampler._target_=d2_balanced.modeling.sampling.RandomSamplr", ["Did you mean RandomSampler"]),
        # the form
        ("train.max_iter", ["key.path=value"]),
        ("train.max_iter=1,2", ["sweeps"]),
        ("~train.max_iter", ["deletions"]),
    ],
)
def test_mistakes_are_named(path, override, parts):
    with pytest.raises(ConfigError) as error:
        load_lazy(path, [override])
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "line, parts",
    [
        ("train['max_itr'] = 3", ["train.max_itr", "config.py", "Did you mean train.max_iter"]),
        ("data['train_jsn'] = ''", ["data.train_jsn", "Did you mean data.train_json"]),
        ("model['sampler'].num_bin = 3", ["model.sampler.num_bin", "IoUBalancedSampler", "Did you mean num_bins"]),
        ("model['conv'].pading = 3", ["model.conv.pading", "Conv2d", "Did you mean padding"]),
    ],
)
def test_mistakes_in_the_file_are_named(path, line, parts):
    with open(path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError) as error:
        load_lazy(path)
    for part in parts:
        assert part in str(error.value)


def test_missing_file(path, tmp_path):
    with pytest.raises(ConfigError, match="confg.py.*does not exist.*Did you mean config.py"):
        load_lazy(str(tmp_path / "confg.py"))


def test_a_file_that_fails_leaves_python_imports_alone(tmp_path):
    before = builtins.__import__
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_lazy(str(tmp_path / "broken.py"))
    assert builtins.__import__ is before
