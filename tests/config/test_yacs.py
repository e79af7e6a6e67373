"""Loading yacs files strictly: what is accepted, and what each mistake is told."""

import os

import pytest

from d2_balanced.config import ConfigError, get_balanced_cfg, load_yaml, merge_overrides


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_file


def load(write, text, *opts):
    return load_yaml(write("config.yaml", text), opts)


def test_values_are_brought_to_the_type_of_the_default(write):
    cfg = load(write, "SOLVER: {BASE_LR: 1, STEPS: [3, 4], WARMUP_FACTOR: 1e-2}\nOUTPUT_DIR: '123'")
    assert (cfg.SOLVER.BASE_LR, type(cfg.SOLVER.BASE_LR)) == (1.0, float)
    assert cfg.SOLVER.STEPS == (3, 4)
    assert cfg.SOLVER.WARMUP_FACTOR == 0.01  # YAML reads 1e-2 as a string
    assert cfg.OUTPUT_DIR == "123"


@pytest.mark.parametrize(
    "key, word, value",
    [
        ("SOLVER.MAX_ITER", "10", 10),
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.STEPS", "(3, 4)", (3, 4)),
        ("SOLVER.STEPS", "()", ()),
        ("MODEL.MASK_ON", "true", True),
        ("MODEL.MASK_ON", "True", True),
        ("MODEL.WEIGHTS", "123", "123"),
        ("MODEL.WEIGHTS", "", ""),
        ("MODEL.WEIGHTS", "'a b.pth'", "a b.pth"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32.5], [64]]", [[32.5], [64]]),
        ("DATASETS.TRAIN", "('a',)", ("a",)),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.1", 0.1),
    ],
)
def test_words_of_the_command_line(key, word, value):
    cfg = get_balanced_cfg()
    merge_overrides(cfg, [key, word])
    for part in key.split("."):
        cfg = cfg[part]
    assert cfg == value and type(cfg) is type(value)


def test_bases_are_merged_in_order(write):
    write("a.yaml", "SOLVER: {MAX_ITER: 1, IMS_PER_BATCH: 1, BASE_LR: 0.1}")
    write("b.yaml", "SOLVER: {MAX_ITER: 2, IMS_PER_BATCH: 2}")
    solver = load(write, "_BASE_: [a.yaml, b.yaml]\nSOLVER: {MAX_ITER: 3}").SOLVER
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (3, 2, 0.1)


def test_spec_nodes_take_new_arguments_from_files_and_from_the_command_line(write):
    text = "MODEL: {BALANCED: {SAMPLER: {NAME: IoUBalancedSampler, NUM_BINS: 4}}}"
    sampler = load(write, text, "MODEL.BALANCED.SAMPLER.UPPER", "max_overlap").MODEL.BALANCED.SAMPLER
    assert dict(sampler) == {"NAME": "IoUBalancedSampler", "NUM_BINS": 4, "UPPER": "max_overlap"}


@pytest.mark.parametrize("in_a_file", [True, False])
def test_another_component_drops_the_arguments_of_the_old_one(write, in_a_file):
    base = "MODEL: {BALANCED: {SAMPLER: {NAME: IoUBalancedSampler, NUM_BINS: 4}}}"
    if in_a_file:
        write("base.yaml", base)
        cfg = load(write, "_BASE_: base.yaml\nMODEL: {BALANCED: {SAMPLER: {NAME: RandomSampler, NEG_POS_UB: 3}}}")
    else:
        prefix = "MODEL.BALANCED.SAMPLER."
        cfg = load(write, base, prefix + "NEG_POS_UB", "3", prefix + "NAME", "RandomSampler")  # in either order
    assert dict(cfg.MODEL.BALANCED.SAMPLER) == {"NAME": "RandomSampler", "NEG_POS_UB": 3}


def test_the_same_component_keeps_its_arguments(write):
    text = "MODEL: {BALANCED: {SAMPLER: {NAME: IoUBalancedSampler, NUM_BINS: 4}}}"
    sampler = load(write, text, "MODEL.BALANCED.SAMPLER.NAME", "IoUBalancedSampler").MODEL.BALANCED.SAMPLER
    assert sampler.NUM_BINS == 4


def test_a_saved_config_loads_as_it_was(write):
    opts = ["MODEL.BALANCED.SAMPLER", "{NAME: IoUBalancedSampler, NUM_BINS: 4}", "SOLVER.STEPS", "(3, 4)"]
    cfg = load(write, "MODEL: {BALANCED: {BRANCHES: [{POSITIVE_FRACTION: 0.5}]}}", *opts)
    assert load_yaml(write("saved.yaml", cfg.dump())) == cfg


def test_branches_can_be_given_on_the_command_line():
    cfg = get_balanced_cfg()
    merge_overrides(cfg, ["MODEL.BALANCED.BRANCHES", "[{POSITIVE_FRACTION: 0.5}, {POSITIVE_FRACTION: 0.1}]"])
    assert cfg.MODEL.BALANCED.BRANCHES == [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]


@pytest.mark.parametrize(
    "text, opts, parts",
    [
        # a misspelt key, in a file and on the command line
        ("SOLVER: {MAX_ITR: 3}", (), ["SOLVER.MAX_ITR", "config.yaml", "Did you mean SOLVER.MAX_ITER"]),
        ("", ("SOLVER.MAX_ITR", "3"), ["SOLVER.MAX_ITR", "command line", "Did you mean SOLVER.MAX_ITER"]),
        ("", ("MODEL.WEIGTHS", "x"), ["MODEL.WEIGTHS", "Did you mean MODEL.WEIGHTS"]),
        ("", ("NUM_CLASSES", "3"), ["NUM_CLASSES", "Did you mean MODEL.ROI_HEADS.NUM_CLASSES"]),
        ("", ("MODEL.BALANCED.SAMPLR.NAME", "x"), ["MODEL.BALANCED.SAMPLR", "MODEL.BALANCED.SAMPLER.NAME"]),
        ("MODLE: {WEIGHTS: x}", (), ["MODLE", "config.yaml"]),
        # values of another type
        ("SOLVER: {MAX_ITER: x}", (), ["SOLVER.MAX_ITER", "config.yaml", "expected int", "got str 'x'"]),
        ("SOLVER: {MAX_ITER: 1.5}", (), ["SOLVER.MAX_ITER", "expected int", "got float 1.5"]),
        ("", ("SOLVER.STEPS", "(100)"), ["SOLVER.STEPS", "expected tuple", "got int 100", "(100,)"]),
        ("", ("SOLVER.STEPS", "('a', 3)"), ["SOLVER.STEPS", "('a', 3)"]),
        ("MODEL: {MASK_ON: 1}", (), ["MODEL.MASK_ON", "expected bool", "got int 1"]),
        ("MODEL: {ROI_HEADS: StandardROIHeads}", (), ["MODEL.ROI_HEADS", "expected a mapping", "NAME"]),
        ("MODEL: {WEIGHTS: [a]}", (), ["MODEL.WEIGHTS", "expected str", "got list"]),
        ("SOLVER: {MAX_ITER: }", (), ["SOLVER.MAX_ITER", "got None"]),
        ("", ("DATASETS.TRAIN", "coco_2017_train"), ["DATASETS.TRAIN", "expected tuple", "got str"]),
        ("", ("SOLVER.MAX_ITER.X", "1"), ["SOLVER.MAX_ITER", "expected int", "mapping"]),
        # the form
        ("", ("SOLVER.MAX_ITER",), ["KEY.PATH VALUE", "odd number"]),
        ("", ("SOLVER.MAX_ITER=3",), ["KEY=VALUE is the form for LazyConfig"]),
        ("", ("SOLVER.AMP", "x", "SOLVER.AMP.ENABLED", "True"), ["SOLVER.AMP.ENABLED", "as well"]),
        ("VERSION: 1", (), ["VERSION", "config.yaml", "only 2"]),
        ("SOLVER: {MAX_ITER: 1, MAX_ITER: 2}", (), ["config.yaml", "MAX_ITER is given twice"]),
        ("SOLVER: [", (), ["config.yaml", "not a (safe) YAML file"]),
        ("SOLVER: {MAX_ITER: !!python/object/apply:eval ['3']}", (), ["config.yaml", "(safe) YAML"]),
        ("just words", (), ["config.yaml", "expected a mapping"]),
        ("_BASE_: other.yaml", (), ["config.yaml", "other.yaml", "does not exist"]),
        ("_BASE_: [config.yaml]", (), ["circle"]),
    ],
)
def test_mistakes_are_named(write, text, opts, parts):
    with pytest.raises(ConfigError) as error:
        load(write, text, *opts)
    for part in parts:
        assert part in str(error.value)


def test_a_mistake_in_a_base_names_the_base(write):
    base = write("base.yaml", "SOLVER: {MAX_ITR: 3}")
    with pytest.raises(ConfigError, match="SOLVER.MAX_ITR in .*base.yaml"):
        load(write, f"_BASE_: {os.path.basename(base)}")


def test_a_folder_is_no_config_but_a_runs_folder_has_one(tmp_path):
    with pytest.raises(ConfigError, match=f"'{tmp_path}' is a folder[.]$"):
        load_yaml(str(tmp_path))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=f"is a folder. Did you mean {tmp_path}/config.yaml"):
        load_yaml(str(tmp_path))


def test_missing_file_suggests_its_neighbours(write):
    path = write("faster_rcnn.yaml", "")
    with pytest.raises(ConfigError, match="faster_rcn.yaml.*does not exist.*Did you mean faster_rcnn.yaml"):
        load_yaml(path.replace("rcnn", "rcn"))
    with pytest.raises(ConfigError, match="no folder"):
        load_yaml("nowhere/faster_rcnn.yaml")


def test_nothing_is_changed_by_a_refused_override():
    cfg = get_balanced_cfg()
    with pytest.raises(ConfigError):
        merge_overrides(cfg, ["SOLVER.MAX_ITR", "3"])
    assert cfg == get_balanced_cfg()
