"""The one door: a config, a checkpoint of it, the folder of a run, in both config systems."""

import glob
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import LazyCall as L
from detectron2.modeling import META_ARCH_REGISTRY, ProposalNetwork, RetinaNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from omegaconf import OmegaConf
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, checkpoint, data_arguments, differences, make_dataset, quick_config, train_net
from torch import nn
from twins import config_stems

from d2_balanced.config import ConfigError, yaml_files
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.from_lazy import LazyExperiment
from d2_balanced.engine.from_yacs import YacsExperiment
from d2_balanced.engine.open import open_checkpoint, open_experiment, open_run
from d2_balanced.utils.errors import CheckpointError

YAML, LAZY = quick_config("faster_rcnn"), quick_config("faster_rcnn", "py")
SMALL = {"yaml": [*TINY, "SOLVER.MAX_ITER", "2"], "py": [*LAZY_TINY, "train.max_iter=2"]}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_dataset(folder / "train"), make_dataset(folder / "val", images=2, seed=1)


@pytest.fixture(scope="module")
def runs(datasets, tmp_path_factory):
    """``{ending: folder}`` of a finished run of two iterations in each config system."""
    folders = {}
    for ending, settings in SMALL.items():
        folders[ending] = tmp_path_factory.mktemp(ending) / "run"
        words = ["--config-file", quick_config("faster_rcnn", ending), *data_arguments(*datasets)]
        assert train_net(*words, "--output-dir", folders[ending], *settings) == 0
    return folders


@pytest.mark.parametrize("ending, override", [("yaml", ["SOLVER.IMS_PER_BATCH", "2"]),
                                              ("py", ["dataloader.train.total_batch_size=2"])])  # fmt: skip
def test_a_file_is_opened_with_overrides_and_own_data(ending, override):
    experiment = open_experiment(quick_config("faster_rcnn", ending), override, OwnData(val_json="a", val_images="b"))
    assert type(experiment) is {"yaml": YacsExperiment, "py": LazyExperiment}[ending]
    assert (experiment.reference_batch_size, experiment.settings.batch_size) == (4, 2)
    assert experiment.own_data == OwnData("", "", "a", "b")
    experiment.set_own_data(OwnData(val_json="c", train_json="d"))
    assert experiment.own_data == OwnData("d", "", "c", "b"), "what is empty leaves the config's"
    experiment.set_run(weights="w.pth", output_dir="x/y", seed=3)
    assert experiment.settings.weights == "w.pth" and experiment.settings.seed == 3


def test_a_lazy_file_is_executed_once(tmp_path, datasets):
    """Also by the command line: a config may read a clock, or write a file."""
    path, log = tmp_path / "config.py", tmp_path / "executed"
    with open(LAZY) as file:
        code = file.read().replace("from ...", f"from {'.' * 3}").replace("..base", "._base")
    os.symlink(os.path.join(ROOT, "configs", "base"), tmp_path / "_base")
    path.write_text(f"{code}\nwith open({str(log)!r}, 'a') as _file:\n    _file.write('x')\n")
    experiment = open_experiment(str(path), ["dataloader.train.total_batch_size=2"])
    assert log.read_text() == "x" and experiment.reference_batch_size == 4
    words = ["--config-file", path, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *LAZY_TINY, "train.max_iter=1") == 0
    assert log.read_text() == "xx"


def test_a_yaml_file_is_read_once(monkeypatch):
    read = []
    plain = yaml_files.parse_yaml
    monkeypatch.setattr(yaml_files, "parse_yaml", lambda text, path: read.append(path) or plain(text, path))
    open_experiment(YAML, ["SOLVER.IMS_PER_BATCH", "2"])
    assert YAML in read and len(read) == len(set(read)) == 6, "the file and its bases"


@pytest.mark.parametrize("name, content, message", [
    ("config.txt", "", "has to end in .py .LazyConfig. or .yaml"),
    ("confg.yaml", None, "does not exist. Did you mean config.yaml"),
    ("config.yaml", "model: {}\ntrain: {}\n", "The LazyConfig has no 'dataloader'"),
    ("config.yaml", "model: {}\n", "model in .*config.yaml: there is no such key"),
    ("config.yaml", "a: !!python/object/apply:os.getcwd []\n", "not a .safe. YAML file: .*os.getcwd"),
    ("config.yaml", "model: {a: !!python/object/apply:os.getcwd []}\ntrain: {}\n",
     "model.a in .*config.yaml cannot be read without running code: it is !!python/object/apply:os.getcwd"),
    ("config.yaml", "model: {a: !!python/name:no.Thing ''}\ntrain: {}\n", "model.a: cannot import 'no.Thing'"),
])  # fmt: skip
def test_what_is_no_config_is_refused(name, content, message, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        open_experiment(str(tmp_path / name))


@pytest.mark.parametrize("content, message", [
    (None, "config.yaml' does not exist"), ("", "is no config that a run has saved"),
    ("SOLVER: {MAX_ITER: 3}", "is no config that a run has saved"),
    ("- 1", "expected a mapping"), (b"\xff\xfe\x00", "not a .safe. YAML file"),
])  # fmt: skip
def test_what_is_no_run_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message):
        open_run(str(tmp_path))


def test_a_checkpoint_is_no_run_but_may_lie_in_one(tmp_path):
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(ConfigError, match=f"is a file. A run is a folder, here perhaps '{tmp_path}'"):
        open_run(str(tmp_path / "model_final.pth"))


@pytest.mark.parametrize("ending", SMALL)
def test_a_run_is_opened_from_its_folder_wherever_it_lies(ending, runs, tmp_path):
    folder = str(shutil.copytree(runs[ending], tmp_path / "moved"))
    experiment = open_run(folder)
    assert experiment.settings.output_dir == folder
    assert experiment.settings.weights == os.path.join(folder, "model_final.pth")
    model = open_checkpoint(experiment)
    weights = {name: value.numpy() for name, value in checkpoint(folder)["model"].items()}
    assert weights.keys() == model.state_dict().keys()
    assert all((value.numpy() == weights[name]).all() for name, value in model.state_dict().items())
    for path in glob.glob(os.path.join(folder, "*.pth")) + [os.path.join(folder, "last_checkpoint")]:
        os.remove(path)
    with pytest.raises(ConfigError, match="--weights is missing"):
        open_checkpoint(open_run(folder))


def test_the_saved_config_of_a_lazy_run_is_used_as_a_yaml_ones(runs, datasets, tmp_path, capsys):
    """To train again, with the bits of the .py file, to evaluate, and to go on."""
    saved, more = str(runs["py"] / "config.yaml"), ["--output-dir", tmp_path / "again"]
    assert train_net("--config-file", saved, *more) == 0
    assert not differences(checkpoint(runs["py"]), checkpoint(tmp_path / "again"))
    saved = str(tmp_path / "again" / "config.yaml")
    words = ["--config-file", saved, "--eval-only", "--output-dir", tmp_path / "eval"]
    assert train_net(*words, f"train.init_checkpoint={tmp_path}/again/model_final.pth") == 0
    first, second = ((tmp_path / name / "inference/own_val/metrics.json").read_text() for name in ("again", "eval"))
    assert first == second
    assert train_net("--config-file", saved, *more, "SOLVER.MAX_ITER", "3") == 2
    sorted_keys = yaml.dump(yaml.safe_load(Path(saved).read_text()))  # as runs wrote them before
    Path(saved).write_text(sorted_keys)
    capsys.readouterr()
    assert train_net("--config-file", saved, "--resume", *more, "train.max_iter=3") == 0
    changes = re.findall(r"^    (\S+: .* -> .*)", capsys.readouterr().out, re.MULTILINE)
    assert changes == ["train.max_iter: 2 -> 3"]
    assert checkpoint(tmp_path / "again")["iteration"] == 2


def test_every_kind_of_lazy_config_is_the_same_after_saving(tmp_path, monkeypatch):
    """Also those that hold a class as a value."""
    monkeypatch.setattr("d2_balanced.compat.has_compiled_ops", lambda: True)
    stems = [stem for stem in config_stems() if "X_101" in stem or "DCN" in stem or "htc" in stem][::4]
    quick = [os.path.join("configs", "quick", f"{name}_R_18_FPN") for name in ("retinanet", "fast_rcnn")]
    held = ""
    for stem in [*stems, *quick]:
        texts, path = [], os.path.join(ROOT, stem + ".py")
        for name in ("first.yaml", "second.yaml"):
            experiment = open_experiment(path)
            path = str(tmp_path / name)
            experiment.save_config(path)
            texts.append((tmp_path / name).read_text())
        assert texts[0] == texts[1], stem
        held += texts[0]
    assert len(stems) > 5 and "!!python/name:detectron2.modeling.backbone.resnet.BottleneckBlock" in held


def test_a_class_that_is_a_value_is_a_class_again(tmp_path):
    path = str(tmp_path / "config.yaml")
    open_experiment(os.path.join(ROOT, "configs", "coco", "faster_rcnn_X_101_32x4d_FPN_1x.py")).save_config(path)
    assert open_experiment(path).cfg.model.backbone.bottom_up.stages[0].block_class is BottleneckBlock


@pytest.mark.parametrize("value, left", [(threading.Lock(), ["config.yaml.pkl"]), (lambda: 3, ["config.yaml", "config.yaml.pkl"])])
def test_what_yaml_cannot_hold_stops_no_run_and_is_left_to_detectron2(value, left, tmp_path):
    experiment = open_experiment(LAZY)
    experiment.cfg.model.hook = value
    experiment.save_config(str(tmp_path / "config.yaml"))
    assert sorted(os.listdir(tmp_path)) == left


def test_a_lazy_config_that_was_saved_before_modules_were_moved_is_opened(runs, tmp_path):
    text = (runs["py"] / "config.yaml").read_text()
    assert "d2_balanced.engine.optimizer.clipped_sgd" in text
    (tmp_path / "config.yaml").write_text(text.replace("d2_balanced.engine.optimizer", "d2_balanced.solver"))
    optimizer = open_run(str(tmp_path)).cfg.optimizer
    assert optimizer._target_ == "d2_balanced.engine.optimizer.clipped_sgd"


READ_OTHERWISE = {
    "yaml": (["MODEL.BALANCED.CLS_LOSS.NAME", "QualityFocal"], ["MODEL.BALANCED.NMS.NAME", "SoftNMS"], "CLS_LOSS.NAME"),
    "py": (["model.roi_heads.box_predictor.box2box_transform.weights=[1.0,1.0,1.0,1.0]"], ["model.roi_heads.nms._target_=SoftNMS"],
           "box2box_transform.weights"),
}  # fmt: skip


@pytest.mark.parametrize("ending", READ_OTHERWISE)
def test_a_checkpoint_whose_outputs_are_read_otherwise_is_said(ending, runs, datasets, caplog):
    other, suppression, key = READ_OTHERWISE[ending]
    data = OwnData(*map(str, (*datasets[0], *datasets[1])))
    for overrides, said in (([], 0), (suppression, 0), (other, 1)):
        caplog.clear()
        experiment = open_experiment(quick_config("faster_rcnn", ending), [*SMALL[ending], *overrides], data)
        open_checkpoint(experiment, str(runs[ending] / "model_final.pth"))
        warnings = [record.getMessage() for record in caplog.records if "outputs are read" in record.getMessage()]
        assert len(warnings) == said and all(key in warning for warning in warnings)


def test_a_checkpoint_has_to_fit_and_the_check_comes_before_it(runs):
    weights = str(runs["yaml"] / "model_final.pth")
    other = open_experiment(quick_config("retinanet"), TINY)
    with pytest.raises(CheckpointError, match="another architecture"):
        open_checkpoint(other, weights)
    with pytest.raises(ConfigError, match="--weights is missing"):
        open_checkpoint(other)
    assert other.settings.weights == "", "not changed"

    def refuse(model):
        raise RuntimeError("not this one")

    with pytest.raises(RuntimeError, match="not this one"):
        open_checkpoint(other, weights, check=refuse)


class NoArchitecture(nn.Module):
    def __init__(self, cfg):
        super().__init__()


class OwnDense(RetinaNet):
    pass


class OwnProposals(ProposalNetwork):
    pass


@pytest.mark.parametrize("architecture, wanted", [
    (NoArchitecture, 7), (OwnDense, 8), (OwnProposals, None), (RetinaNet, 8), (ProposalNetwork, None)
])  # fmt: skip
def test_the_number_of_classes_is_the_architectures_own(architecture, wanted, monkeypatch):
    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, architecture.__name__, architecture)
    experiment = open_experiment(YAML)
    cfg = experiment.cfg
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES = (
        architecture.__name__, 7, 8,
    )  # fmt: skip
    assert experiment.num_classes == wanted
    experiment.num_classes = 5
    assert experiment.num_classes == (wanted and 5)


@pytest.mark.parametrize("model", ["faster_rcnn", "retinanet", "cascade_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("ending", SMALL)
def test_the_number_of_classes_reaches_every_part_of_the_model(model, ending):
    experiment = open_experiment(quick_config(model, ending))
    experiment.set_run(device="cpu")
    experiment.num_classes = 5
    assert experiment.num_classes == 5
    built = experiment.build_model()
    found = {module.num_classes for module in built.modules() if isinstance(getattr(module, "num_classes", None), int)}
    assert found == {5}


def two_sets(ending):
    names = {"yaml": ["DATASETS.TEST", "('two_a','two_b')"], "py": ["dataloader.test.dataset.names=[two_a,two_b]"]}
    classes = {"yaml": ["MODEL.ROI_HEADS.NUM_CLASSES", 2], "py": ["model.roi_heads.num_classes=2"]}
    return names[ending] + classes[ending]


@pytest.fixture(scope="module")
def two(datasets, tmp_path_factory):
    register_by_path("two_a", *datasets[1], replace=True)
    register_by_path("two_b", *make_dataset(tmp_path_factory.mktemp("b"), images=3, seed=2), replace=True)


@pytest.mark.parametrize("ending", SMALL)
def test_several_data_sets_are_evaluated_alike_in_both_systems(ending, runs, two, tmp_path):
    experiment = open_experiment(quick_config("faster_rcnn", ending), [*SMALL[ending], *two_sets(ending)])
    experiment.set_run(output_dir=str(tmp_path))
    before = str(experiment.cfg)
    model = open_checkpoint(experiment, str(runs[ending] / "model_final.pth"))
    found = experiment.evaluate(model)
    assert list(found) == ["bbox", "two_b"] and list(found["two_b"]) == ["bbox"]
    assert sorted(os.listdir(tmp_path / "inference")) == ["two_a", "two_b"]
    for name, tasks in (("two_a", found), ("two_b", found["two_b"])):
        experiment.set_datasets(None, name)
        assert experiment.test_datasets == (name,)
        alone = experiment.evaluate(model)
        torch.testing.assert_close(alone["bbox"], dict(tasks["bbox"]), equal_nan=True, rtol=0, atol=0)
    experiment.set_datasets(None, None)
    assert experiment.test_datasets == () and experiment.evaluate(model) == {}
    assert "two_b" in before


def test_a_lazy_run_evaluates_several_data_sets(two, datasets, tmp_path):
    words = ["--config-file", LAZY, "--output-dir", tmp_path / "out", *LAZY_TINY, "train.max_iter=1", *two_sets("py")]
    train = ["dataloader.train.dataset.names=[two_a,two_b]", "train.best_metric=two_b/bbox/AP"]
    assert train_net(*words, *train) == 0
    assert sorted(os.listdir(tmp_path / "out" / "inference")) == ["two_a", "two_b"]
    assert "two_b/bbox/AP" in (tmp_path / "out" / "best.json").read_text()
    saved = open_run(str(tmp_path / "out"))
    assert saved.train_datasets == saved.test_datasets == ("two_a", "two_b")
    saved.set_own_data(OwnData(*datasets[0], *datasets[1]))
    saved.use_own_data()
    assert saved.train_datasets == ("own_train",) and saved.test_datasets == ("own_val",)


@pytest.mark.parametrize("metric, hint", [("bbox/APP", "bbox/AP"), ("two_b/bbox/AP57", "bbox/AP75"), ("two_a/bbox/AP", "")])
@pytest.mark.parametrize("config, key, system", [(YAML, "TEST.BEST_METRIC", "yaml"), (LAZY, "train.best_metric", "py")])
def test_a_best_metric_that_will_not_be_there_is_told_before_training(two, config, key, system, metric, hint):
    word = [key, metric] if system == "yaml" else [f"{key}={metric}"]
    experiment = open_experiment(config, [*two_sets(system), *word])
    with pytest.raises(ConfigError, match=f"{re.escape(key)}: the evaluation of 'two_.' has no value.*{hint}"):
        experiment.check_evaluation()


def test_lazy_evaluators_are_of_the_data_set_that_they_evaluate(two):
    made = []

    def evaluator(dataset_name, limit=1):
        return made.append((dataset_name, limit)) or dataset_name

    experiment = open_experiment(LAZY, two_sets("py"))
    node = experiment.cfg.dataloader
    node.test.dataset.proposal_files = ["a.pkl", "b.pkl"]
    node.test._target_ = lambda dataset, **more: dataset
    node.test.dataset._target_ = lambda **arguments: arguments
    by_name = L(evaluator)(dataset_name="${dataloader.test.dataset.names}")
    node.evaluator = [by_name, L(evaluator)(dataset_name="fixed", limit=2)]
    before = OmegaConf.to_container(node, resolve=False)
    for name, file in (("two_a", "a.pkl"), ("two_b", "b.pkl")):
        loader, _ = experiment.build_test(name)
        assert (loader["names"], loader["proposal_files"]) == (name, [file])
        assert made[-2:] == [(name, 1), (name, 2)]
    assert OmegaConf.to_container(node, resolve=False) == before, "the config is as it was"


def test_own_data_without_a_validation_set_keep_what_a_test_needs(datasets, tmp_path):
    """A lazy run that had nothing to evaluate on can be evaluated later."""
    words = ["--config-file", LAZY, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *LAZY_TINY, "train.max_iter=1") == 0
    experiment = open_run(str(tmp_path / "out"))
    assert experiment.test_datasets == () and experiment.build_mapper(False) is not None
    saved = ["--config-file", tmp_path / "out" / "config.yaml", "--output-dir", tmp_path / "out"]
    assert train_net(*saved, "--resume", "--eval-only", "--val-json", datasets[1][0], "--val-images", datasets[1][1]) == 0
    assert os.listdir(tmp_path / "out" / "inference") == ["own_val"]
    experiment.cfg.dataloader.test = None  # as runs saved it before
    experiment.set_own_data(OwnData(val_json=datasets[1][0], val_images=datasets[1][1]))
    with pytest.raises(ConfigError, match="dataloader.test: the config has none"):
        experiment.use_own_data()
