"""A run knows itself: its classes, its data, its config. What is not the same later is matched, carried out, or refused."""

import json
import logging
import os
import shutil

import pytest
import roi_heads_tools
import torch
import yaml
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from tiny_runs import TINY, checkpoint, data_arguments, make_dataset, quick_config, train_net

from d2_balanced.engine import run
from d2_balanced.engine.checkpoint_files import read_checkpoint
from d2_balanced.engine.class_match import RenumberedClasses
from d2_balanced.engine.class_weights import match_weights
from d2_balanced.engine.from_yacs import YacsExperiment
from d2_balanced.engine.open import open_run, saved_seed
from d2_balanced.train import argument_parser
from d2_balanced.utils.errors import CheckpointError

CONFIG = ["--config-file", quick_config("faster_rcnn")]
SETTINGS = [*TINY, "SEED", 5, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 4]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1)


@pytest.fixture(scope="module")
def finished(datasets, tmp_path_factory):
    """A run of 4 iterations."""
    folder = str(tmp_path_factory.mktemp("finished") / "run")
    assert train_net(*CONFIG, *data_arguments(*datasets), "--output-dir", folder, *SETTINGS) == 0
    return folder


@pytest.fixture
def stopped(finished, tmp_path):
    """A copy of the run as it was after 2 iterations."""
    folder = tmp_path / "stopped"
    shutil.copytree(finished, folder)
    for name in ("model_final.pth", "model_best.pth"):
        os.remove(folder / name)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    return str(folder)


def renamed(source, target, change):
    """A copy of a data set whose annotations ``change(content)`` has changed."""
    shutil.copytree(os.path.dirname(source[0]), target)
    path = os.path.join(target, "annotations.json")
    with open(path) as file:
        content = json.load(file)
    change(content)
    with open(path, "w") as file:
        json.dump(content, file)
    return path, str(target)


def swap_ids(content):
    ids = {3: 7, 7: 3}
    for entry in content["categories"]:
        entry["id"] = ids[entry["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]


def without_dark(content):
    content["categories"] = [c for c in content["categories"] if c["name"] != "dark"]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 7]


def test_a_checkpoint_says_what_its_run_is(finished):
    about = checkpoint(finished)["about"]
    assert about["classes"] == ((3, "dark"), (7, "light"))
    assert [(d["images"], len(d["digest"])) for d in about["data"]] == [(6, 64)]
    assert "roi_heads.box_predictor.cls_score.weight" in about["trained"]
    text = read_checkpoint(os.path.join(finished, "model_final.pth"))["about"]["config"]
    with open(os.path.join(finished, "config.yaml")) as file:
        assert file.read().endswith(text)  # below a comment


def evaluated(folder, weights, data):
    words = ["--val-json", data[0], "--val-images", data[1], "MODEL.WEIGHTS", weights]
    assert train_net(*CONFIG, "--eval-only", "--output-dir", folder, *words[:4], *TINY, *words[4:]) == 0
    with open(os.path.join(folder, "inference", "own_val", "metrics.json")) as file:
        report = json.load(file)
    return {"AP": report["metrics"]["bbox"]["AP"], **{row["class"]: row["AP"] for row in report["per_class"]["bbox"]}}


def test_classes_are_matched_by_name_in_evaluation(finished, datasets, tmp_path, capsys):
    weights = os.path.join(finished, "model_final.pth")
    plain = evaluated(str(tmp_path / "plain"), weights, datasets[1])
    swapped = evaluated(str(tmp_path / "swapped"), weights, renamed(datasets[1], tmp_path / "a", swap_ids))
    told = capsys.readouterr()
    assert "the same names in another order" in told.out + told.err
    assert swapped["AP"] == plain["AP"] and swapped["light"] == plain["light"]
    fewer = evaluated(str(tmp_path / "fewer"), weights, renamed(datasets[1], tmp_path / "b", without_dark))
    told = capsys.readouterr()
    assert "not in the data, and left out: dark" in told.out + told.err
    assert fewer["light"] == plain["light"]


def test_nothing_in_common_is_refused(finished, datasets, tmp_path, capsys):
    def other(content):
        for entry in content["categories"]:
            entry["name"] = entry["name"].upper()

    data = renamed(datasets[1], tmp_path / "other", other)
    words = ["--eval-only", "--output-dir", tmp_path / "e", "--val-json", data[0], "--val-images", data[1], *TINY]
    assert train_net(*CONFIG, *words, "MODEL.WEIGHTS", os.path.join(finished, "model_final.pth")) == 2
    told = capsys.readouterr().err
    assert "dark (id 3)" in told and "DARK (id 3)" in told


def test_renumbered_classes_leave_out_what_has_none():
    found = Instances((9, 9), pred_boxes=Boxes(torch.eye(4)[:3]), pred_classes=torch.tensor([0, 1, 2]))

    class Model(torch.nn.Module):
        def forward(self, inputs):
            return [{"instances": found}, {"proposals": 1}]

    first, second = RenumberedClasses(Model(), [1, None, 0])([{}, {}])
    assert first["instances"].pred_classes.tolist() == [1, 0] and second == {"proposals": 1}
    assert first["instances"].pred_boxes.tensor.tolist() == torch.eye(4)[[0, 2]].tolist()


BUCKETS = ["MODEL.BALANCED.BOX_CODER.NAME", "Buckets", "MODEL.BALANCED.BOX_LOSS.NAME", "BucketLoss"]
SIDES = [*BUCKETS, "MODEL.ROI_BOX_HEAD.NAME", "SideAwareHead", "MODEL.ROI_BOX_HEAD.NUM_CONV", 1]


@pytest.mark.parametrize(
    "config, settings, of_box",
    [
        ("mask_rcnn", [], 4),
        ("retinanet", [], 4),
        ("cascade_rcnn", [], 4),
        ("faster_rcnn", BUCKETS, 56),
        ("faster_rcnn", SIDES, 2),
    ],
    ids=["mask_rcnn", "retinanet", "cascade_rcnn", "buckets", "buckets of sides"],
)
def test_weights_go_where_their_class_is(config, settings, of_box):
    def model(classes):
        overrides = [str(word) for word in [*TINY, *settings, "MODEL.DEVICE", "cpu"]]
        experiment = YacsExperiment.from_config(run.open_experiment(quick_config(config), overrides).cfg)
        experiment.num_classes = classes
        return build_model(experiment.cfg)

    torch.manual_seed(0)
    old, new = model(3), model(2)
    trained, wanted = ((1, "a"), (2, "b"), (3, "c")), ((1, "c"), (2, "new"))
    state = {key: value.clone() for key, value in old.state_dict().items()}
    match_weights(new, state, trained, wanted)
    own = new.state_dict()
    changed = [key for key in state if state[key].shape != old.state_dict()[key].shape]
    assert changed and all(state[key].shape == own[key].shape for key in state)
    for key in changed:
        before, after, fresh = old.state_dict()[key], state[key], own[key]
        if "bbox_pred" in key:
            assert torch.equal(after[:of_box], before[2 * of_box :]) and torch.equal(after[of_box:], fresh[of_box:])
        elif config == "retinanet":
            assert torch.equal(after[0::2], before[2::3]) and torch.equal(after[1::2], fresh[1::2])
        else:
            assert torch.equal(after[0], before[2]) and torch.equal(after[1], fresh[1])
            assert len(after) == 2 or torch.equal(after[2], before[3]), "the background"


def _seat(name, component):
    return {f"MODEL__BALANCED__{name}": {"NAME": component}}


@pytest.mark.parametrize(
    "settings, key, dim, per_class",
    [
        (_seat("BOX_LOSS", "KLLoss"), "box_predictor.bbox_log_variance.weight", 0, 4),
        (_seat("CLS_LOSS", "SeesawLoss"), "box_predictor.cls_loss.counts.values", 0, 1),
        (_seat("CLS_LOSS", "ClassBalanced"), "box_predictor.cls_loss.counts.values", 0, 1),
        (_seat("CLS_LOSS", "EQLv2"), "box_predictor.cls_loss.gradients", 1, 1),
        ({"MODEL__MASK_ON": True, **_seat("MASK_IOU_HEAD", "MaskIoUHead")}, "mask_iou_head.predictor.bias", 0, 1),
    ],
)
def test_what_components_know_of_a_class_goes_with_it(settings, key, dim, per_class):
    """As many classes, so that no shape tells: c, one that is new, a."""
    heads = roi_heads_tools.build(roi_heads_tools.tiny_cfg(**settings))
    own = heads.state_dict()[key].fill_(-1.0)
    before = torch.arange(own.numel()).view_as(own).to(own.dtype)
    state = {key: before.clone()}
    match_weights(heads, state, ((1, "a"), (2, "b"), (3, "c")), ((1, "c"), (2, "new"), (3, "a")))
    first, second, third = state[key].split(per_class, dim=dim)
    of_a, _, of_c = before.split(per_class, dim=dim)
    assert torch.equal(first, of_c) and torch.equal(third, of_a) and (second == -1).all()
    assert state[key].dtype == before.dtype and state[key].is_contiguous()


def test_resume_alone_takes_config_and_data_and_changes_nothing(stopped, finished):
    before = sorted(os.listdir(stopped))
    assert train_net("--resume", "--output-dir", stopped) == 0
    a, b = checkpoint(finished), checkpoint(stopped)
    assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])
    assert [name for name in os.listdir(stopped) if name.startswith("config")] == ["config.yaml"]
    assert set(before) < set(os.listdir(stopped))


@pytest.mark.parametrize("with_config", [False, True])
def test_a_resume_carries_changes_out(stopped, with_config, capsys):
    with open(os.path.join(stopped, "config.yaml")) as file:
        first = file.read()
    changes = ["SOLVER.BASE_LR", 0.001, "SOLVER.MOMENTUM", 0.5, "SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.MAX_ITER", 5]
    options, overrides = (CONFIG, SETTINGS) if with_config else ([], [])
    assert train_net(*options, "--resume", "--output-dir", stopped, *overrides, *changes) == 0
    told = capsys.readouterr()
    assert "SOLVER.MOMENTUM: 0.9 -> 0.5" in told.out + told.err
    state = checkpoint(stopped)["trainer"]
    assert state["iteration"] == 4
    assert {(g["momentum"], g["initial_lr"]) for g in state["optimizer"]["param_groups"]} == {(0.5, 0.001)}
    assert 0.01 in {g["weight_decay"] for g in state["optimizer"]["param_groups"]}
    assert set(state["scheduler"]["base_lrs"]) == {0.001}
    with open(os.path.join(stopped, "config.yaml")) as file:
        assert file.read() == first, "the first config stays"
    with open(os.path.join(stopped, "config.2.yaml")) as file:
        assert yaml.safe_load(file)["SOLVER"]["MOMENTUM"] == 0.5
    assert open_run(stopped).settings.output_dir == stopped and open_run(stopped).schedule.max_iter == 5


def test_own_data_are_found_again_from_another_folder(datasets, monkeypatch):
    """The config has whole paths, whatever the command line had."""
    monkeypatch.chdir(os.path.dirname(datasets[0][1]))
    monkeypatch.setenv("HOME", os.path.dirname(datasets[0][1]))
    name = os.path.basename(datasets[0][1])
    words = ["--train-json", os.path.relpath(datasets[0][0]), "--train-images", f"~/{name}"]
    experiment = run.load_experiment(argument_parser().parse_args([*CONFIG[:2], *words]))
    assert experiment.own_data[:2] == datasets[0]


def refused(capsys, *words):
    assert train_net(*words) == 2
    return capsys.readouterr().err


def test_what_a_resume_cannot_change_is_refused_by_name(stopped, datasets, tmp_path, capsys):
    resume = ["--resume", "--output-dir", stopped]
    assert "MODEL.BACKBONE.FREEZE_AT 0 -> 3" in refused(capsys, *resume, "MODEL.BACKBONE.FREEZE_AT", 3)
    other = renamed(datasets[0], tmp_path / "other", swap_ids)
    told = refused(capsys, *resume, *data_arguments(other, datasets[1]))
    assert "dark (id 3), light (id 7)" in told and "light (id 3), dark (id 7)" in told

    def fewer(content):
        content["annotations"].pop()

    changed = renamed(datasets[0], tmp_path / "changed", fewer)
    assert "--accept-changed-data" in refused(capsys, *resume, *data_arguments(changed, datasets[1]))
    assert train_net(*resume, "--accept-changed-data", *data_arguments(changed, datasets[1])) == 0
    told = capsys.readouterr()
    assert "not all the same ones" in told.out + told.err


def test_a_folder_without_a_run_is_said(tmp_path, capsys):
    assert "There is no run in" in refused(capsys, "--resume", "--output-dir", tmp_path / "mistyped")
    words = [*CONFIG, "--resume", "--require-checkpoint", "--output-dir", tmp_path / "mistyped", *TINY]
    assert "--require-checkpoint" in refused(capsys, *words)
    assert "--config-file is missing" in refused(capsys, "--output-dir", tmp_path)


def test_empty_paths_are_refused(tmp_path, datasets, capsys):
    words = [*CONFIG, "--output-dir", tmp_path]
    assert "--train-json is empty" in refused(capsys, *words, "--train-json", "", "--train-images", "")
    val = ["--val-json", datasets[1][0], "--val-images", datasets[1][1]]
    assert "would train on the config's own data set" in refused(capsys, *words, *val)


def test_small_damage_does_not_block_a_sound_run(stopped, capsys, caplog):
    # Said before the run's log is started, when the logger has the handlers of earlier tests.
    logging.getLogger("d2_balanced.engine.open").addHandler(caplog.handler)
    with open(os.path.join(stopped, "last_checkpoint"), "wb") as file:
        file.write(b"\xff\xfe")
    os.remove(os.path.join(stopped, "config.yaml"))
    os.symlink("nowhere", os.path.join(stopped, "model_0000009.pth"))
    torch.save({"model": [1]}, os.path.join(stopped, "model_0000008.pth"))
    torch.save({"model": checkpoint(stopped, "model_0000001.pth")["model"]}, os.path.join(stopped, "model_0000007.pth"))
    with open(os.path.join(stopped, "best.json"), "w") as file:
        file.write("[]")
    assert saved_seed(stopped) == 5
    assert train_net("--resume", "--output-dir", stopped) == 0
    told = capsys.readouterr()
    for text in ("is a list, not a dict of weights", "no training state"):
        assert text in told.out + told.err
    logging.getLogger("d2_balanced.engine.open").removeHandler(caplog.handler)
    assert "The config is taken from" in caplog.text
    assert checkpoint(stopped)["trainer"]["iteration"] == 3


STRANGE = {
    "another trainer's notes": {"about": ["me"]},
    "notes of another kind": {"about": {"config": 3, "classes": [1, 2], "data": 4}},
    "an identity without data": {"about": {"config": "", "classes": (), "data": (3,)}},
    "no training state": {"trainer": 3},
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_another_trainer_put_beside_the_weights_is_passed_over(stopped, case, capsys):
    path = os.path.join(stopped, "model_0000001.pth")
    torch.save({**torch.load(path, weights_only=True), **STRANGE[case]}, path)
    ended = train_net("--resume", "--output-dir", stopped)
    told = capsys.readouterr()
    assert ended == (2 if case == "no training state" else 0)
    assert ("no training state (trainer)" if ended else "they are not compared") in told.out + told.err


def test_every_flipped_bit_of_the_weights_is_found(finished, tmp_path):
    with open(os.path.join(finished, "model_final.pth"), "rb") as file:
        content = file.read()
    values = checkpoint(finished)["model"]["roi_heads.box_head.fc1.weight"].numpy().tobytes()
    start = content.index(values[:64])
    path = str(tmp_path / "model_final.pth")
    for place in range(start, start + len(values), len(values) // 20):
        with open(path, "wb") as file:
            file.write(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="checksum"):
            read_checkpoint(path)


def test_an_evaluation_that_was_killed_is_made_up_for(finished, tmp_path):
    folder = str(tmp_path / "killed")
    shutil.copytree(finished, folder)
    with open(os.path.join(folder, "metrics.json")) as file:
        lines = [json.loads(line) for line in file]
    with open(os.path.join(folder, "metrics.json"), "w") as file:
        file.writelines(json.dumps({k: v for k, v in line.items() if "AP" not in k}) + "\n" for line in lines)
    for name in ("model_best.pth", "best.json", "results.png", "results.csv"):
        os.remove(os.path.join(folder, name))
    assert train_net("--resume", "--output-dir", folder) == 0
    with open(os.path.join(folder, "metrics.json")) as file:
        again = [json.loads(line) for line in file]
    assert again[-1]["bbox/AP"] == lines[-1]["bbox/AP"] and again[-1]["total_loss"] == lines[-1]["total_loss"]
    assert {"model_best.pth", "best.json", "results.png"} <= set(os.listdir(folder))
    assert train_net("--resume", "--output-dir", folder) == 2, "now nothing is left"


def test_a_run_that_ended_early_is_complete(datasets, tmp_path, capsys):
    folder = str(tmp_path / "early")
    early = ["SOLVER.MAX_ITER", 12, "SOLVER.BASE_LR", 1e-9, "TEST.EVAL_PERIOD", 2, "TEST.PATIENCE", 1]
    assert train_net(*CONFIG, *data_arguments(*datasets), "--output-dir", folder, *SETTINGS, *early) == 0
    done = checkpoint(folder)["trainer"]["iteration"] + 1
    assert done < 12 and f"model_{done - 1:07d}.pth" in os.listdir(folder), "a periodic checkpoint at the same iteration"
    assert "TEST.PATIENCE" in refused(capsys, "--resume", "--output-dir", folder)
    assert train_net("--resume", "--output-dir", folder, "TEST.PATIENCE", 0) == 0
    assert checkpoint(folder)["trainer"]["iteration"] == 11


def test_windows_of_statistics_start_anew_where_their_size_changed(datasets, tmp_path, capsys):
    adaptive = ["MODEL.ROI_HEADS.NAME", "BalancedROIHeads", "MODEL.BALANCED.MATCHER.NAME", "DynamicMatcher"]
    period = "MODEL.BALANCED.MATCHER.PERIOD"
    folder = str(tmp_path / "run")
    words = [*CONFIG, *data_arguments(*datasets), "--output-dir", folder, *SETTINGS]
    assert train_net(*words, *adaptive, period, 3) == 0
    threshold = checkpoint(folder)["model"]["roi_heads.proposal_matcher.threshold"]
    capsys.readouterr()
    assert train_net("--resume", "--output-dir", folder, period, 7, "SOLVER.MAX_ITER", 5) == 0
    told = capsys.readouterr()
    assert "windows that start empty" in told.out + told.err
    after = checkpoint(folder)["model"]
    assert after["roi_heads.proposal_matcher.window.count"] == 1
    assert torch.equal(after["roi_heads.proposal_matcher.threshold"], threshold)
