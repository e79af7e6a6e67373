"""Two configs have the same key if, and only if, their runs would have the same results."""

import os

import pytest
from d2_balanced.config import get_balanced_cfg, load_yaml
from d2_balanced.tables import identity
from d2_balanced.tables.identity import run_key
from paths import ROOT

QUICK = os.path.join(ROOT, "configs", "quick", "faster_rcnn_R_18_FPN.yaml")
PYRAMID = ["MODEL.BACKBONE.NAME", "build_resnet_balanced_fpn_backbone"]
BALANCED_L1 = ["MODEL.BALANCED.BOX_LOSS.NAME", "BalancedL1"]


def key(*words, config=QUICK):
    return run_key(load_yaml(config, [str(word) for word in words]))


@pytest.mark.parametrize("first, second", [
    ([], ["OUTPUT_DIR", "elsewhere", "SEED", "7", "MODEL.DEVICE", "cpu"]),
    ([], ["SOLVER.CHECKPOINT_PERIOD", "60", "SOLVER.LOG_PERIOD", "5", "DATALOADER.NUM_WORKERS", "2"]),
    ([], ["ANALYSIS.RECORD", "True", "ANALYSIS.PERIOD", "10"]),
    ([], ["MODEL.BALANCED.SAMPLER.NAME", "RandomSampler"]),
    (BALANCED_L1, BALANCED_L1 + ["MODEL.BALANCED.BOX_LOSS.ALPHA", "0.5", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "1.0"]),
    (PYRAMID, PYRAMID + ["MODEL.BALANCED.FPN.REFINE_LEVEL", "2"]),
    (["MODEL.PIXEL_STD", "(64.0,64.0,64.0)"], []),
])  # fmt: skip
def test_the_same(first, second):
    assert key(*first) == key(*second)


@pytest.mark.parametrize("first, second", [
    ([], ["SOLVER.BASE_LR", "0.02"]),
    ([], ["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "1.0"]),
    ([], ["DATASETS.TEST", "('generated_train',)"]),
    ([], BALANCED_L1),
    (BALANCED_L1, BALANCED_L1 + ["MODEL.BALANCED.BOX_LOSS.ALPHA", "0.3"]),
    (PYRAMID, PYRAMID + ["MODEL.BALANCED.FPN.REFINE_LEVEL", "1"]),
    ([], PYRAMID),
])  # fmt: skip
def test_not_the_same(first, second):
    assert key(*first) != key(*second)


def test_an_evaluation_is_not_its_training():
    cfg = load_yaml(QUICK)
    assert len({run_key(cfg), run_key(cfg, eval_of="0123456789"), run_key(cfg, eval_of="9876543210")}) == 3


def test_a_setting_that_a_later_version_adds_changes_no_key(monkeypatch):
    before = key()
    defaults = get_balanced_cfg()
    defaults.SOLVER.NEW = [1]
    monkeypatch.setattr(identity, "get_balanced_cfg", lambda: defaults)
    identity._defaults.cache_clear()
    cfg = load_yaml(QUICK)
    cfg.SOLVER.NEW = [1]
    assert run_key(cfg) == before
    cfg.SOLVER.NEW = [2]
    assert run_key(cfg) != before
    identity._defaults.cache_clear()


def test_data_are_known_by_their_content(tmp_path, monkeypatch):
    for name, text in (("a", "{}"), ("same", "{}"), ("other", "{ }")):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "train.json").write_text(text)

    def of(folder, images="images"):
        return key("DATASETS.TRAIN_JSON", f"{folder}/train.json", "DATASETS.TRAIN_IMAGES", f"{folder}/{images}")

    monkeypatch.chdir(tmp_path)
    expected = of("a")
    assert expected == of("same") == of(tmp_path / "a") == of("./a", "images/")
    assert expected != of("other") and expected != of("a", "smaller") and expected != key()
    assert expected == key("DATASETS.TRAIN_JSON", "a/train.json", "DATASETS.TRAIN_IMAGES", "a/images",
                           "DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "()",
                           "MODEL.ROI_HEADS.NUM_CLASSES", "7", "MODEL.RETINANET.NUM_CLASSES", "7")  # fmt: skip
    (tmp_path / "a" / "train.json").write_text("{  }")
    assert expected != of("a")


def test_a_config_of_an_older_version_lacks_keys_that_are_at_their_defaults(tmp_path):
    saved = load_yaml(QUICK).dump()
    start, end = saved.index("ANALYSIS:"), saved.index("CUDNN_BENCHMARK")
    (tmp_path / "config.yaml").write_text(saved[:start] + saved[end:])
    assert key(config=str(tmp_path / "config.yaml")) == key()
