"""Configs and fragments by name: what there is, what a name means, and what adding a fragment gives."""

import os
import subprocess
import sys

import pytest
import yaml
from commands import refusal
from detectron2.config import CfgNode
from omegaconf import DictConfig
from paths import ROOT

from d2_balanced import zoo
from d2_balanced.analysis.parameters import model_without_values
from d2_balanced.engine.open import open_experiment, open_run
from d2_balanced.engine.run import load_experiment
from d2_balanced.train import argument_parser
from d2_balanced.utils.errors import ConfigError

QUICK = "quick/faster_rcnn_R_18_FPN"


def test_every_config_has_a_name_and_a_twin():
    names = zoo.list_configs()
    assert {QUICK, "LibraRCNN/libra_faster_rcnn_R_50_FPN_1x", "coco/retinanet_R_50_FPN_1x"} <= set(names)
    for name in names:
        path, twin = zoo.get_config_file(name), zoo.get_config_file(f"{name}.py")
        assert os.path.isfile(path) and os.path.splitext(twin)[0] == os.path.splitext(path)[0] and os.path.isfile(twin)
        assert zoo.describe(path)


@pytest.mark.parametrize("name", [name for name in zoo.list_fragments() if not name.startswith("base/")])
def test_every_fragment_of_a_project_has_a_function_for_lazy_configs(name):
    from d2_balanced.config.lazy_fragments import _find

    path = zoo.get_config_file(name)
    assert _find(os.path.dirname(path), name.split("/")[1], path).__doc__ and zoo.describe(path)


def test_the_ending_says_which_config_system_a_name_means():
    cfg, lazy = zoo.get_config(QUICK), zoo.get_config(f"{QUICK}.py")
    assert isinstance(cfg, CfgNode) and isinstance(lazy, DictConfig)
    assert cfg == zoo.get_config(f"{QUICK}.yaml") == open_experiment(f"configs/{QUICK}.yaml").cfg
    assert zoo.get_config(QUICK, ["SEED", "7"]).SEED == 7


def test_a_file_that_is_there_comes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("quick")
    (tmp_path / "quick" / "mine.yaml").write_text("VERSION: 2\nSEED: 5\n")
    assert zoo.get_config("quick/mine.yaml").SEED == 5
    assert zoo.get_config(QUICK).SEED == 1, "the folder of that name hides nothing else"


@pytest.mark.parametrize("base", [QUICK, f"configs/{QUICK}.yaml"])
def test_a_config_of_ones_own_has_a_base_by_name_anywhere(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"_BASE_: [{base}, RGA_PRM/rga]\nSEED: 9\n")
    assert zoo.get_config("mine.yaml") == zoo.get_config(QUICK, ["SEED", "9"], ["RGA_PRM/rga"])
    (tmp_path / os.path.dirname(base)).mkdir(parents=True)
    (tmp_path / base).write_text("SEED: 3\nVERSION: 2\n")
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {base}\n")
    assert zoo.get_config("mine.yaml").SEED == 3, "the file beside it comes first"


@pytest.mark.parametrize("name, said", [
    ("LibraRCNN/libra_faster_rcnn_R_50_FPN_1", "Did you mean LibraRCNN/libra_faster_rcnn_R_50_FPN_1x"),
    ("LibraRCNN/sampling", "Did you mean .*LibraRCNN/iou_balanced_sampling"),
    ("nothing/like/this", "d2_balanced configs"),
    ("nothing", "d2_balanced configs"),
    ("rga", "Did you mean RGA_PRM/rga[?]"),
    ("faster_rcnn_R_18_FPN.py", "Did you mean quick/faster_rcnn_R_18_FPN[?]"),
    ("min.yaml", "Did you mean mine.yaml[?]"),
])  # fmt: skip
def test_a_name_that_there_is_not(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("VERSION: 2\n")
    with pytest.raises(ConfigError, match=said):
        zoo.get_config(name)
    with pytest.raises(ConfigError, match=said):
        zoo.get_config(QUICK, add=[name])


@pytest.mark.parametrize("fragments, name", [
    (["LibraRCNN/iou_balanced_sampling"], "LibraRCNN/libra_quick_sampling"),
    (["LibraRCNN/libra"], "LibraRCNN/libra_quick"),
    (["RGA_PRM/rga", "RGA_PRM/prm"], "RGA_PRM/rga_prm_quick"),
])  # fmt: skip
@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_fragment_gives_what_a_config_with_it_gives(fragments, name, ending):
    added = open_experiment(QUICK + ending, fragments=fragments)
    assert added.config_text() == open_experiment(name + ending).config_text()
    assert added.config_text() != open_experiment(QUICK + ending).config_text()


@pytest.mark.parametrize("ending", ["", ".py"])
@pytest.mark.parametrize("name", ["IoUUniformRCNN/iou_uniform_quick_cascade", "RGA_PRM/rga_prm_quick_cascade"])
def test_mmdetections_cascade_is_a_fragment_beside_detectron2s(name, ending):
    def stages(fragments):
        found = model_without_values(open_experiment(name + ending, fragments=fragments)).roi_heads.stages
        settings = ("loss_weights", "merge", "resample", "keep_appended_gt")
        return found.feature_grad_scale, *(getattr(found, setting) for setting in settings)

    assert stages([]) == (pytest.approx(1 / 3), (1.0, 1.0, 1.0), "probability", False, True)
    assert stages(["base/models/mmdetection_cascade"]) == (1.0, (1.0, 0.5, 0.25), "logit", True, False)


@pytest.mark.parametrize("ending", ["", ".py"])
def test_mmdetections_cascade_makes_no_cascade_of_what_is_none(ending):
    loops = open_experiment("R3CNN/r3_quick" + ending, fragments=["base/models/mmdetection_cascade"])
    stages = model_without_values(loops).roi_heads.stages
    assert type(stages).__name__ == "RecursiveStages" and stages.loss_weights == (1.0, 0.5, 0.25)
    with pytest.raises(ConfigError, match="SingleStage has no argument 'loss_weights'"):
        open_experiment(QUICK + ending, fragments=["base/models/mmdetection_cascade"])


def test_fragments_are_merged_in_their_order_before_the_overrides():
    parts = ["LibraRCNN/balanced_l1", "LibraRCNN/iou_balanced_sampling"]
    loss = zoo.get_config(QUICK, ["MODEL.BALANCED.BOX_LOSS.ALPHA", "0.7"], parts).MODEL.BALANCED.BOX_LOSS
    assert (loss.NAME, loss.ALPHA, loss.GAMMA) == ("BalancedL1", 0.7, 1.5)
    assert zoo.get_config(QUICK, add=parts).MODEL.BALANCED.SAMPLER.NAME == "IoUBalancedSampler"
    with pytest.raises(ConfigError, match="there is one seat for both"):
        zoo.get_config(QUICK, add=["LibraRCNN/balanced_l1", "DynamicRCNN/dynamic_smooth_l1"])
    lazy = zoo.get_config(f"{QUICK}.py", ["model.roi_heads.box_predictor.box_loss.alpha=0.7"], parts)
    assert lazy.model.roi_heads.box_predictor.box_loss.alpha == 0.7


@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_fragment_is_added_to_the_config_that_a_run_has_saved(ending, tmp_path):
    saved, fragment = str(tmp_path / "config.yaml"), ["RGA_PRM/rga_prm"]
    open_experiment(QUICK + ending).save_config(saved)
    fresh, again = (open_experiment(file, fragments=fragment) for file in (QUICK + ending, saved))
    assert content(fresh) == content(again)
    run = open_run(str(tmp_path), fragments=fragment)
    run.set_run(output_dir=fresh.settings.output_dir, weights=fresh.settings.weights)
    assert content(run) == content(fresh)


def content(experiment):
    """The settings in words, whatever is written once and referred to."""
    return yaml.load(experiment.config_text(), Loader=yaml.BaseLoader)


def test_what_a_schedule_was_made_for_follows_its_fragment():
    fragment = ["IoUUniformRCNN/coco_4_images"]
    for ending, override in ("", ["SOLVER.IMS_PER_BATCH", "8"]), (".py", ["dataloader.train.total_batch_size=8"]):
        experiment = open_experiment(f"coco/faster_rcnn_R_50_FPN_1x{ending}", override, fragments=fragment)
        assert (experiment.reference_batch_size, experiment.settings.batch_size) == (4, 8)
        assert (experiment.schedule.lr, experiment.schedule.max_iter) == (0.01, 360000)


@pytest.mark.parametrize("code, said", [
    ("def owm(model): pass", "no .py file in .* has a function 'own'. Did you mean owm"),
    ("def own(modl): pass", "changes 'modl', which this config does not have"),
    ("def own(model): model.roi_heads.no_such_node.alpha = 1", "own.yaml does not fit this config"),
    ("def own(model): model.roi_heads.no_such_setting = 1", "no_such_setting after the fragment"),
])  # fmt: skip
def test_own_fragments_of_lazy_configs_are_looked_at(code, said, tmp_path):
    (tmp_path / "own.yaml").write_text("SEED: 9\n")
    (tmp_path / "parts.py").write_text(f"{code}\n")
    own = str(tmp_path / "own.yaml")
    assert open_experiment(QUICK, fragments=[own]).settings.seed == 9
    with pytest.raises(ConfigError, match=said):
        open_experiment(f"{QUICK}.py", fragments=[own])


def test_names_and_fragments_on_the_command_line():
    words = ["--config-file", QUICK, "--add", "RGA_PRM/rga", "--add", "RGA_PRM/prm", "--output-dir", "out", "SEED", "4"]
    experiment = load_experiment(argument_parser().parse_args(words))
    assert experiment.settings.seed == 4 and experiment.settings.output_dir == "out"
    assert experiment.cfg.SOLVER.GRADIENT_ANNEALING.INITIAL == 7.0 and len(experiment.cfg.MODEL.BALANCED.BRANCHES) == 2


def test_the_list(capsys):
    zoo.main(["iou_balanced"])
    listed = capsys.readouterr().out
    assert "fragments (--add):\n  LibraRCNN/iou_balanced_sampling  Libra R-CNN, section 3.1" in listed
    assert "LibraRCNN/libra_quick_sampling" in listed and "retinanet" not in listed
    zoo.main([])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == zoo.list_configs() + zoo.list_fragments()
    assert "has 'libre'" in refusal(zoo.main, "libre")
    assert "show NAME" in refusal(zoo.main, "libra", "quick")


def test_a_config_is_shown_whole(capsys):
    zoo.main(["show", f"{QUICK}.py", "--add", "RGA_PRM/rga", "train.max_iter=5"])
    shown = capsys.readouterr().out
    assert shown == open_experiment(f"{QUICK}.py", ["train.max_iter=5"], fragments=["RGA_PRM/rga"]).config_text()
    assert "max_iter: 5" in shown and "initial: 7.0" in shown
    assert "which one" in refusal(zoo.main, "show")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel of this checkout is unpacked into."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(folder / "build"), "build_py",
               "--build-lib", str(folder / "lib")]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder / "lib"


def test_a_wheel_has_all_configs_fragments_and_projects(installed):
    def files(folder):
        return {
            os.path.relpath(os.path.join(path, name), folder) for path, _, names in os.walk(folder) for name in names
            if "__pycache__" not in path
        }  # fmt: skip

    for folder in ("configs", "projects"):
        assert files(installed / "d2_balanced" / folder) == files(os.path.join(ROOT, folder))
    assert (installed / "d2_balanced" / "analysis" / "report" / "template.html").is_file()


PROGRAM = f"""
import os, sys
import d2_balanced
from d2_balanced import zoo
from d2_balanced.tables.files import find_papers
assert d2_balanced.__file__.startswith(os.environ["PYTHONPATH"])
for ending in ("", ".py"):
    cfg = zoo.get_config("{QUICK}" + ending, add=["BalancedRCNN/r3_prm"])
    assert str(cfg) == str(zoo.get_config("BalancedRCNN/r3_prm_quick" + ending)), ending
    assert zoo.get_config_file("IoUUniformRCNN/iou_uniform").startswith(os.environ["PYTHONPATH"])
assert "LibraRCNN" in find_papers()
"""


def test_an_installed_package_is_used_outside_the_checkout(installed, tmp_path):
    """yaml's bases and the relative imports of LazyConfigs are found there, across configs and projects."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, "-c", PROGRAM], **run)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "d2_balanced", "configs", "r3_prm"], **run)
    assert done.returncode == 0 and "BalancedRCNN/r3_prm_quick" in done.stdout, done.stderr
