"""``train_net.py`` as a user meets it: what a run leaves behind, and what every kind of misuse says."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from d2_balanced.config import ConfigError, load_yaml
from d2_balanced.data.coco_paths import register_by_path
from d2_balanced.data.proposal_files import write_proposals
from d2_balanced.train import argument_parser
from d2_balanced.engine.from_yacs import YacsExperiment
from d2_balanced.engine.open import open_experiment
from d2_balanced.engine.run import fit_to_batch_size, load_experiment
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, checkpoint, data_arguments, make_dataset, quick_config, train_net

FILES = {
    "best.json", "config.yaml", "last_checkpoint", "log.txt", "metrics.json", "model_best.pth", "model_final.pth",
    "results.csv", "results.png", "inference",
}  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1)


@pytest.fixture(scope="module")
def finished(datasets, tmp_path_factory):
    """A finished run of 4 iterations: its folder and the words that made it."""
    folder = tmp_path_factory.mktemp("run") / "faster"
    words = ["--config-file", quick_config("faster_rcnn"), *data_arguments(*datasets), "--output-dir", folder]
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 4) == 0
    return folder, words


def left_by(folder):
    names = {name for name in os.listdir(folder) if not name.startswith("events.out.tfevents")}
    assert len(names) == len(os.listdir(folder)) - 1, "one file of TensorBoard events"
    return names


def test_a_run_leaves_the_same_files_in_both_config_systems(finished, datasets, tmp_path):
    folder, _ = finished
    assert left_by(folder) == FILES
    words = ["--config-file", LAZY, *data_arguments(*datasets), "--output-dir", tmp_path / "lazy"]
    assert train_net(*words, *LAZY_TINY, "train.max_iter=2") == 0
    assert left_by(tmp_path / "lazy") == FILES
    inference = {name for _, _, names in os.walk(folder / "inference") for name in names}
    assert {"coco_instances_results.json", "metrics.json", "metrics.csv", "per_class.csv"} <= inference
    assert inference == {name for _, _, names in os.walk(tmp_path / "lazy" / "inference") for name in names}


def test_the_number_of_classes_comes_from_the_data(finished):
    folder, _ = finished
    assert checkpoint(folder)["model"]["roi_heads.box_predictor.cls_score.weight"].shape[0] == 2 + 1
    assert "'light', 'dark'" not in (folder / "log.txt").read_text()
    assert "NUM_CLASSES: 2" in (folder / "config.yaml").read_text()


def test_eval_only_gives_the_digits_of_the_training(finished, datasets, tmp_path):
    folder, _ = finished
    metrics = next((folder / "inference").glob("*/metrics.json"))
    before = json.loads(metrics.read_text())
    words = ["--config-file", quick_config("faster_rcnn"), *data_arguments(*datasets), "--eval-only"]
    weights = ["MODEL.WEIGHTS", folder / "model_final.pth"]
    assert train_net(*words, "--output-dir", tmp_path / "given", *TINY, *weights) == 0
    assert json.loads(next((tmp_path / "given").glob("inference/*/metrics.json")).read_text()) == before
    metrics.unlink()
    assert train_net(*words, "--output-dir", folder, "--resume", *TINY) == 0
    assert json.loads(metrics.read_text()) == before


def test_the_script_itself_runs_and_says_what_is_wrong():
    words = [sys.executable, "train_net.py", "--config-file", "configs/quick/faster_rcnn_R_19_FPN.yaml"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "faster_rcnn_R_19_FPN.yaml' does not exist. Did you mean" in done.stderr


def test_ctrl_c_with_data_workers_saves_a_checkpoint(datasets, tmp_path):
    words = ["--config-file", YAML, *data_arguments(datasets[0]), "--output-dir", str(tmp_path / "out"), *TINY]
    many = ["SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "2"]
    run = subprocess.Popen(
        [sys.executable, "train_net.py", *words, *many], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    for line in run.stdout:
        if " iter: 5 " in line:
            break
    os.killpg(run.pid, signal.SIGINT)  # what a terminal does: to the workers, too
    said, _ = run.communicate()
    assert run.returncode == 130, said
    last = (tmp_path / "out" / "last_checkpoint").read_text()
    assert checkpoint(tmp_path / "out", last)["iteration"] == int(last[6:13]) >= 5 and "Traceback" not in said


def test_a_loader_of_detectron2_works_but_has_no_epochs(datasets, tmp_path, capsys):
    words = ["--config-file", LAZY, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out"]
    plain = [*LAZY_TINY, "train.max_iter=1", "dataloader.train._target_=detectron2.data.build_detection_train_loader"]
    assert train_net(*words, "--epochs", 1, *plain) == 2
    assert "--epochs needs d2_balanced's loader" in capsys.readouterr().err
    assert train_net(*words, *plain) == 0
    assert "epoch" in (tmp_path / "out" / "results.csv").read_text()


YAML, LAZY = quick_config("faster_rcnn"), quick_config("faster_rcnn", "py")
MISUSE = {
    "key of an override": (YAML, ["SOLVER.BASELR", 1], "SOLVER.BASELR.*Did you mean SOLVER.BASE_LR"),
    "key of a lazy override": (LAZY, ["train.max_itr=1"], "train.max_itr.*Did you mean .*max_iter"),
    "argument of a lazy node": (LAZY, ["dataloader.train.num_worker=1"], "num_worker.*Did you mean .*num_workers"),
    "argument that only the call refuses": (LAZY, ["optimizer.learning=1"], "unexpected keyword argument 'learning'"),
    "type": (YAML, ["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR.*expected float.*'fast'"),
    "type in lazy": (LAZY, ["optimizer.lr=fast"], "optimizer.lr.*expected float.*'fast'"),
    "odd overrides": (YAML, ["SOLVER.BASE_LR"], "pairs"),
    "option after overrides": (YAML, ["SEED", 1, "--resume"], "--resume stands after the config overrides"),
    "a lazy override of a yaml config": (YAML, ["SOLVER.BASE_LR=1"], "LazyConfig"),
    "weights that are not there": (YAML, ["MODEL.WEIGHTS", "nowhere.pth"], "no weights at 'nowhere.pth'"),
    "accumulate": (YAML, ["SOLVER.ACCUMULATE", 3], "multiple of the 1 process.* it is 2, and accumulate is 3"),
    "device": (YAML, ["MODEL.DEVICE", "gpu"], "torch knows no device 'gpu'"),
    "patience": (YAML, ["TEST.PATIENCE", -1], "TEST.PATIENCE: must be 0 or more, got -1"),
    "form of images": (LAZY, ["dataloader.train.mapper.image_format=BRG"], "train.mapper.image_format: .* BGR, .* got 'BRG'"),
    "form of masks": (LAZY, ["dataloader.train.mapper.instance_mask_format=rle"], "instance_mask_format: must be one of"),
    "loss in lazy": (LAZY, ["model.proposal_generator.box_reg_loss_type=l1"], "box_reg_loss_type: must be one of smooth_l1"),
    "mode without channels": (YAML, ["INPUT.FORMAT", "P"], "INPUT.FORMAT: must be one of BGR, .* got 'P'"),
    "channels": (YAML, ["INPUT.FORMAT", "RGBA"], "4 channels .INPUT.FORMAT.*the model takes 3 .MODEL.PIXEL_MEAN"),
    "sampler": (YAML, ["DATALOADER.SAMPLER_TRAIN", "Mine"], "DATALOADER.SAMPLER_TRAIN: Mine does not go with this trainer"),
    "scheduler of detectron2": (YAML, ["SOLVER.LR_SCHEDULER_NAME", "Cosine"], "Cosine"),
    "detectron2's own assertion": (YAML, ["MODEL.RESNETS.DEPTH", 18], "Must set .*RES2_OUT_CHANNELS = 64.*resnet.py"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_told_on_one_screen_with_status_2(case, datasets, tmp_path, capsys):
    config, overrides, message = MISUSE[case]
    tiny = LAZY_TINY if config == LAZY else TINY
    words = ["--config-file", config, *data_arguments(*datasets), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *tiny, *overrides) == 2
    said = capsys.readouterr().err
    assert_matches(message, said)
    assert "Traceback" not in said and said.count("\n") < 20
    assert not (tmp_path / "out" / "metrics.json").exists()


def assert_matches(pattern, text):
    assert re.search(pattern, text, re.DOTALL), text


def test_an_attribute_that_is_no_key_is_refused():
    cfg = load_yaml(YAML)
    cfg.SOLVER.MAX_ITERS = 5
    with pytest.raises(ConfigError, match="SOLVER.MAX_ITERS.*Did you mean SOLVER.MAX_ITER"):
        YacsExperiment(cfg)


def test_number_of_classes_against_a_named_data_set(datasets, tmp_path, capsys):
    register_by_path("tiny_named", *datasets[0], replace=True)
    words = ["--config-file", YAML, "--output-dir", tmp_path / "out", *TINY]
    named = ["DATASETS.TRAIN", "('tiny_named',)", "DATASETS.TEST", "('tiny_named',)", "MODEL.ROI_HEADS.NUM_CLASSES", 3]
    assert train_net(*words, *named) == 2
    assert_matches("tiny_named.*the model has 3 classes, the data set 2 .dark, light.", capsys.readouterr().err)


@pytest.mark.parametrize("kind", ["yaml", "py"])
def test_proposal_files_are_checked_before_training(kind, datasets, tmp_path, capsys):
    path, images = datasets[0]
    with open(path) as file:
        ids = [image["id"] for image in json.load(file)["images"]]
    boxes = [[[1.0, 1.0, 9.0, 9.0]]] * len(ids)
    sound, lacking = str(tmp_path / "sound.pkl"), str(tmp_path / "lacking.pkl")
    write_proposals(sound, ids, boxes, [[1.0]] * len(ids))
    write_proposals(lacking, ids[1:], boxes[1:], [[1.0]] * (len(ids) - 1))
    tiny = [*LAZY_TINY, "train.max_iter=2"] if kind == "py" else [*TINY, "SOLVER.MAX_ITER", 2]
    words = ["--config-file", quick_config("fast_rcnn", kind), *data_arguments(datasets[0])]

    def trained_on(*files):
        train, test = {"py": ["dataloader.train.dataset.proposal_files=[{}]", "dataloader.test.dataset.proposal_files=[]"],
                       "yaml": ["DATASETS.PROPOSAL_FILES_TRAIN", "DATASETS.PROPOSAL_FILES_TEST"]}[kind]
        if kind == "yaml":
            return train_net(*words, "--output-dir", tmp_path / "out", *tiny, train, str(files), test, "()")
        return train_net(*words, "--output-dir", tmp_path / "out", *tiny, train.format(", ".join(files)), test)

    for files, message in [((lacking,), f"lacking.pkl.*1 of {len(ids)} image.s. have no entry.*image {ids[0]}"),
                           ((sound, sound), "1 data set.*2 file.*PROPOSAL_FILES_TRAIN"),
                           (("nowhere.pkl",), "nowhere.pkl is no readable proposal file")]:
        assert trained_on(*files) == 2
        assert_matches(message, capsys.readouterr().err)
    assert trained_on(sound) == 0


def test_a_fault_in_the_data_names_image_and_annotation(datasets, tmp_path, capsys):
    path, images = datasets[0]
    with open(path) as file:
        content = json.load(file)
    for broken in content["annotations"][4:6]:  # a single one would be left out with a warning
        broken["bbox"][2] = -5
    faulty = tmp_path / "faulty.json"
    faulty.write_text(json.dumps(content))
    words = ["--config-file", YAML, *data_arguments((str(faulty), images)), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *TINY) == 2
    said = capsys.readouterr().err
    annotation = content["annotations"][4]
    assert_matches(f"faulty.json.*image {annotation['image_id']}\\b.*annotation {annotation['id']}\\b", said)
    missing = ["--config-file", YAML, "--train-json", "nowhere.json", "--train-images", images]
    assert train_net(*missing, "--output-dir", tmp_path / "out", *TINY) == 2
    assert "nowhere.json" in capsys.readouterr().err
    half = ["--config-file", YAML, "--train-json", path, "--output-dir", tmp_path / "out"]
    assert train_net(*half, *TINY) == 2
    assert "--train-json needs --train-images" in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_lists_what_does_not_fit(finished, datasets, tmp_path, capsys):
    folder, _ = finished
    words = ["--config-file", quick_config("retinanet"), *data_arguments(*datasets), "--eval-only"]
    weights = ["MODEL.WEIGHTS", folder / "model_final.pth"]
    assert train_net(*words, "--output-dir", tmp_path / "out", *TINY, *weights) == 2
    said = capsys.readouterr().err
    assert_matches("another architecture.*not in the file: .*head.*in the file only: .*proposal_generator", said)
    words = ["--config-file", quick_config("cascade_rcnn"), *data_arguments(*datasets), "--output-dir", folder]
    assert train_net(*words, "--resume", *TINY, "SOLVER.MAX_ITER", 9) == 2
    assert "another architecture" in capsys.readouterr().err


def test_eval_only_without_weights_or_data(datasets, tmp_path, capsys):
    words = ["--config-file", YAML, "--eval-only", "--output-dir", tmp_path / "out"]
    assert train_net(*words, *data_arguments(*datasets), *TINY) == 2
    assert "--eval-only needs weights" in capsys.readouterr().err
    assert train_net(*words, "--resume", *data_arguments(*datasets), *TINY) == 2
    assert "There is no checkpoint in" in capsys.readouterr().err
    assert train_net(*words, *data_arguments(*datasets), *TINY, "MODEL.WEIGHTS", "nowhere.pth") == 2
    assert "no weights at 'nowhere.pth'" in capsys.readouterr().err
    (tmp_path / "any.pth").touch()
    assert train_net(*words, *data_arguments(datasets[0]), *TINY, "MODEL.WEIGHTS", tmp_path / "any.pth") == 2
    assert "--eval-only needs a data set" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "below a file", "proc"])
def test_no_permission_to_write(place, datasets, tmp_path, capsys):
    (tmp_path / "taken").write_text("not a folder")
    out = {"file": tmp_path / "taken", "below a file": tmp_path / "taken" / "out", "proc": "/proc/d2_balanced"}[place]
    assert train_net("--config-file", YAML, *data_arguments(*datasets), "--output-dir", out, *TINY) == 2
    said = capsys.readouterr().err
    assert f"Cannot write to the output folder '{out}'" in said and "--output-dir" in said
    assert (tmp_path / "taken").read_text() == "not a folder"


def test_another_run_is_not_overwritten_and_a_finished_one_not_resumed(finished, capsys):
    folder, words = finished
    before = {name: (folder / name).read_bytes() for name in FILES - {"inference", "log.txt"}}
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 4) == 2
    assert "already holds a run (model_best.pth, model_final.pth). Add --resume" in capsys.readouterr().err
    assert train_net(*words, "--resume", *TINY, "SOLVER.MAX_ITER", 4) == 2
    assert "the checkpoint has done 4 iterations, and SOLVER.MAX_ITER / train.max_iter is 4" in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_metrics_file_without_a_checkpoint_is_put_aside(datasets, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text('{"iteration": 3, "total_loss": 7.0}\n')
    words = ["--config-file", YAML, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 1) == 0
    assert "7.0" in (tmp_path / "out" / "metrics.json.1").read_text()
    assert "7.0" not in (tmp_path / "out" / "metrics.json").read_text()
    assert not (tmp_path / "out" / "inference").exists()  # no validation set was given


def test_a_resume_says_what_changed_in_the_config(datasets, tmp_path, capsys):
    words = ["--config-file", YAML, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 1) == 0
    capsys.readouterr()
    assert train_net(*words, "--resume", *TINY, "SOLVER.MAX_ITER", 2, "SOLVER.MOMENTUM", 0.5) == 0
    said = capsys.readouterr().out
    assert "    SOLVER.MOMENTUM: 0.9 -> 0.5\n" in said


def test_a_run_that_diverges_stops_with_everything_named(datasets, tmp_path, capsys):
    words = ["--config-file", YAML, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out", *TINY]
    wild = ["SOLVER.BASE_LR", 1e9, "SOLVER.CLIP_GRADIENTS.ENABLED", False, "SOLVER.WARMUP_FACTOR", 1.0]
    assert train_net(*words, *wild, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 50) == 1
    details = json.loads((tmp_path / "out" / "nonfinite_loss.json").read_text())
    said = capsys.readouterr().err
    assert f"iteration {details['iteration']}" in said and "learning rate" in said
    assert len(details["images"]) == 2 and all(".png (image id" in image for image in details["images"])
    last = (tmp_path / "out" / "last_checkpoint").read_text()
    assert last == f"model_{details['iteration'] - 1:07d}.pth"
    assert all(torch.isfinite(v).all() for v in checkpoint(tmp_path / "out", last)["model"].values())


def schedule_of(*words):
    """The schedule that ``--auto-scale-lr`` gives."""
    args = argument_parser().parse_args(["--config-file", *map(str, words)])
    experiment = load_experiment(args)
    fit_to_batch_size(experiment, auto_scale=True)
    return experiment.schedule


def test_auto_scale_lr_follows_the_batch_size():
    reference = open_experiment(YAML).schedule
    assert schedule_of(YAML) == reference
    scaled = schedule_of(YAML, "SOLVER.IMS_PER_BATCH", 2)
    assert scaled.lr == pytest.approx(reference.lr / 2) and scaled.max_iter == 2 * reference.max_iter
    assert scaled.warmup_iters == 2 * reference.warmup_iters and scaled.eval_period == 2 * reference.eval_period
    lazy = schedule_of(LAZY, "dataloader.train.total_batch_size=2")
    assert (lazy.lr, lazy.max_iter, lazy.eval_period) == (scaled.lr, scaled.max_iter, scaled.eval_period)
    coco = schedule_of(os.path.join(ROOT, "configs", "coco", "faster_rcnn_R_50_FPN_1x.yaml"), "SOLVER.IMS_PER_BATCH", 8)
    assert (coco.steps, coco.max_iter, coco.lr) == ((120000, 160000), 180000, 0.01)


def test_the_change_of_the_batch_size_is_said(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr("d2_balanced.engine.run.train", lambda trainer, experiment: 0)
    words = ["--config-file", YAML, *data_arguments(datasets[0]), "--output-dir"]
    assert train_net(*words, tmp_path / "scaled", "--auto-scale-lr", "SOLVER.IMS_PER_BATCH", 2) == 0
    said = (tmp_path / "scaled" / "log.txt").read_text()
    assert "batch size 4 -> 2" in said and "lr: 0.03 -> 0.015" in said and "max_iter: 240 -> 480" in said
    assert train_net(*words, tmp_path / "as_is", "SOLVER.IMS_PER_BATCH", 2) == 0
    said = (tmp_path / "as_is" / "log.txt").read_text()
    assert "batch size is 2, the config file's is 4: the learning rate 0.03 is used as it is" in said


def test_the_linear_rule_is_refused_for_adam(tmp_path, capsys):
    adam = ["optimizer._target_=torch.optim.AdamW", "dataloader.train.total_batch_size=2"]
    assert train_net("--config-file", LAZY, "--auto-scale-lr", "--output-dir", tmp_path / "out", *adam) == 2
    assert "optimizer is AdamW" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config, batch", [(YAML, ["SOLVER.IMS_PER_BATCH", 2]), (LAZY, ["dataloader.train.total_batch_size=2"])]
)
def test_epochs_set_the_schedule(config, batch, datasets, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("d2_balanced.engine.run.train", lambda _, experiment: seen.append(experiment.schedule) or 0)
    words = ["--config-file", config, *data_arguments(datasets[0]), "--output-dir", tmp_path / "out", "--epochs", 5]
    assert train_net(*words, *batch) == 0
    (schedule,) = seen
    assert schedule.max_iter == 15  # 6 images, 2 at a time
    assert schedule.eval_period == 15 and (not schedule.warmup_iters or schedule.warmup_iters == round(50 * 15 / 240))
