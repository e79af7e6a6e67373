"""What detectron2, torch, fvcore and OmegaConf refuse of a config is told with its key, in both config systems."""

import builtins
import os
import re

import pytest
import torch
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net

from d2_balanced.config import ConfigError
from d2_balanced.engine import distributed, start
from d2_balanced.engine.build import build_trainer
from d2_balanced.engine.open import open_experiment
from d2_balanced.utils.errors import LaunchError

YAML, LAZY = quick_config("faster_rcnn"), quick_config("faster_rcnn", "py")
RETINANET = quick_config("retinanet")

REFUSED = [
    (YAML, ["MODEL.RESNETS.DEPTH", "19"], "MODEL.RESNETS.DEPTH: there is no 19"),
    (YAML, ["MODEL.RESNETS.DEPTH", "18"], "MODEL.RESNETS.RES2_OUT_CHANNELS: Must set .* = 64 for R18"),
    (YAML, ["MODEL.RESNETS.NORM", "Batch"], "MODEL.RESNETS.NORM: there is no 'Batch' .*batch_norm.py, line"),
    (YAML, ["MODEL.FPN.NORM", "Batch"], "MODEL.FPN.NORM: there is no 'Batch'"),
    (YAML, ["MODEL.FPN.IN_FEATURES", "['res2','res9']"], "MODEL.FPN.IN_FEATURES: there is no 'res9'"),
    (YAML, ["MODEL.FPN.IN_FEATURES", "['res2','res4']"], "MODEL.FPN: Strides 16 4 are not log2 contiguous"),
    (YAML, ["MODEL.FPN.FUSE_TYPE", "max"], "MODEL.FPN: assert fuse_type in"),
    (YAML, ["MODEL.RPN.IN_FEATURES", "['p2','p9']"], "MODEL.RPN.IN_FEATURES: there is no 'p9'"),
    (YAML, ["MODEL.ROI_HEADS.IN_FEATURES", "['p2','p9']"], "MODEL.ROI_HEADS.IN_FEATURES: there is no 'p9'"),
    (YAML, ["MODEL.ROI_HEADS.IN_FEATURES", "['p2','p4']"], "MODEL.ROI_HEADS: .*do not form a pyramid"),
    (YAML, ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64]]"], "MODEL.ANCHOR_GENERATOR: Got sizes of length 2 .* is 5"),
    (YAML, ["MODEL.RPN.IOU_LABELS", "[0,1]"], r"MODEL.RPN: assert len\(labels\) == len\(thresholds\) - 1"),
    (YAML, ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV3"], "MODEL.ROI_BOX_HEAD.POOLER_TYPE: Unknown pooler type"),
    (YAML, ["MODEL.ROI_BOX_HEAD.NUM_FC", "0"], "MODEL.ROI_BOX_HEAD: assert len"),
    (YAML, ["MODEL.RPN.BBOX_REG_LOSS_TYPE", "l3"], "MODEL.RPN.BBOX_REG_LOSS_TYPE: must be one of smooth_l1"),
    (YAML, ["MODEL.PIXEL_MEAN", "[1.0]"], "MODEL: tensor.* have different shapes"),
    (YAML, ["MODEL.ROI_HEADS.NUM_CLASSES", "0"], "MODEL.ROI_HEADS.NUM_CLASSES: must be 1 or more"),
    (RETINANET, ["MODEL.RETINANET.NORM", "X"], "MODEL.RETINANET.NORM: there is no 'X'"),
    (YAML, ["SOLVER.LR_SCHEDULER_NAME", "Cosine"], "SOLVER.LR_SCHEDULER_NAME: Unknown LR scheduler"),
    (YAML, ["SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(20, 10)"], "SOLVER: Milestone must"),
    (YAML, ["SOLVER.WARMUP_METHOD", "quadratic"], "SOLVER.WARMUP_METHOD: Unknown warmup method"),
    (YAML, ["SOLVER.NESTEROV", "True", "SOLVER.MOMENTUM", "0.0"], "SOLVER: Nesterov momentum requires a momentum"),
    (YAML, ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full"],
     "SOLVER.CLIP_GRADIENTS.CLIP_TYPE: 'full' is not a valid"),
    (YAML, ["INPUT.MASK_FORMAT", "rle"], "INPUT.MASK_FORMAT: must be one of polygon, bitmask, got 'rle'"),
    (LAZY, ["model.backbone.bottom_up.stages.depth=19"], "model.backbone.bottom_up.stages.depth: there is no 19"),
    (LAZY, ["model.backbone.norm=Batch"], "model.backbone.norm: there is no 'Batch'"),
    (LAZY, ["model.backbone.bottom_up.out_features=[res2,res9]"], "model.backbone.bottom_up.out_features: Available"),
    (LAZY, ["model.proposal_generator.in_features=[p2,p3,p4,p5,p9]"],
     "model.proposal_generator.in_features: the backbone has no 'p9'; it has p2, p3, p4, p5, p6"),
    (LAZY, ["model.roi_heads.box_in_features=[p2,p9]"], "model.roi_heads.box_in_features: the backbone has no 'p9'"),
    (LAZY, ["model.proposal_generator.anchor_generator.sizes=[[32],[64]]"],
     "model.proposal_generator.anchor_generator: Got sizes of length 2"),
    (LAZY, ["model.proposal_generator.anchor_matcher.labels=[0,1]"],
     r"model.proposal_generator.anchor_matcher: assert len\(labels\) == len\(thresholds\) - 1 .detectron2/modeling/matcher"),
    (LAZY, ["model.roi_heads.box_pooler.scales=[0.25,0.5]"], "model.roi_heads.box_pooler: .*do not form a pyramid"),
    (LAZY, ["model.roi_heads._target_=CascadeROIHeads"], "model.roi_heads: CascadeROIHeads needs model.roi_heads.box_heads"),
    (LAZY, ["model.roi_heads.num_classes='${nowhere.x}'"], "model.roi_heads.num_classes: Interpolation key 'nowhere.x' not"),
    (LAZY, ["model.roi_heads.box_predictor.box_reg_loss_type=giou"],
     "model.roi_heads.box_predictor: BalancedFastRCNNOutputLayers: box_loss=SmoothL1 does not go with"),
    (YAML, ["SOLVER.AMP.ENABLED", "True", "MODEL.LAYERS.PRECISION", "bfloat16"],
     "MODEL.LAYERS.PRECISION: bfloat16 does not go with SOLVER.AMP.ENABLED: True, because both choose the number format"),
    (LAZY, ["train.amp.enabled=true", "train.layers.precision=bfloat16"],
     "train.layers.precision: bfloat16 does not go with train.amp.enabled: true, because both choose the number format"),
    (YAML, ["MODEL.LAYERS.PRECISION", "float64"], "MODEL.LAYERS.PRECISION: must be one of float32, bfloat16, got 'float64'"),
    (LAZY, ["train.layers.precision=float64"], "MODEL.LAYERS .*: precision must be one of float32, bfloat16"),
    (LAZY, ["lr_multiplier.warmup_method=quadratic"], "lr_multiplier.warmup_method: Unknown warmup method"),
    (LAZY, ["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer: Nesterov momentum requires a momentum"),
    (LAZY, ["optimizer.learning=1"], r"optimizer.learning: .* unexpected keyword argument 'learning'"),
]  # fmt: skip


def build(config, overrides, folder):
    """All that is built of a config before training, without its data."""
    experiment = open_experiment(config, [*(LAZY_TINY if config == LAZY else TINY), *overrides])
    experiment.set_run(seed=0, device="cpu", output_dir=str(folder))
    build_trainer(experiment, [], resume=False)


@pytest.mark.parametrize("config, overrides, message", REFUSED, ids=[" ".join(words) for _, words, _ in REFUSED])
def test_the_key_is_named(config, overrides, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        build(config, overrides, tmp_path)
    assert re.match(message, str(error.value)) and "\n" not in str(error.value)


def lazy_file(folder, line):
    """A LazyConfig file: the quick one, changed by a line of Python."""
    path = folder / "own.py"
    names = "model, data, dataloader, optimizer, lr_multiplier, train"
    path.write_text(
        f"from detectron2.config import LazyConfig\n_base = LazyConfig.load({LAZY!r})\n"
        f"{names} = (_base[name] for name in {names.split(', ')})\n{line}\n"
    )
    return str(path)


@pytest.mark.parametrize("line, message", [
    ("optimizer.lr = '???'", "optimizer.lr: Missing mandatory value"),
    ("dataloader.train.total_batch_size = '???'", "dataloader.train.total_batch_size: Missing mandatory value"),
    ("train.max_iter = '${nothing}'", "train.max_iter: Interpolation key 'nothing' not found"),
    ("model.roi_heads.box_pooler.output_size = '???'", "model.roi_heads.box_pooler.output_size: Missing mandatory"),
])  # fmt: skip
def test_a_value_that_is_missing_or_leads_nowhere_is_named(line, message, tmp_path):
    with pytest.raises(ConfigError, match=f"^{message}"):
        experiment = open_experiment(lazy_file(tmp_path, line))
        experiment.build_model()


def test_the_number_of_classes_may_be_left_to_own_data(tmp_path):
    data = make_dataset(tmp_path / "data")
    config = lazy_file(tmp_path, "model.roi_heads.num_classes = '???'")
    words = ["--config-file", config, *data_arguments(data), "--output-dir", tmp_path / "out", *LAZY_TINY]
    assert train_net(*words, "train.max_iter=1") == 0


@pytest.mark.parametrize("words, message", [
    (["dataloader.evaluator.tasks=[box]"], "dataloader.evaluator.tasks: COCODetectionEvaluator: tasks must be"),
    (["dataloader.evaluator._target_=no_such.Evaluator"], "dataloader.evaluator._target_: cannot import .* PYTHONPATH"),
    (["dataloader.test.mapper.augmentations.0.sample_style=x"], r"dataloader.test.mapper.augmentations.0.sample_style: x"),
    (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "both"], "INPUT.MIN_SIZE_TRAIN_SAMPLING: both"),
    (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "round"], "INPUT: assert crop_type in"),
    (["INPUT.MIN_SIZE_TRAIN", "()"], "INPUT.MIN_SIZE_TRAIN: give one size or more"),
    (["DATALOADER.NUM_WORKERS", "-1"], "DATALOADER.NUM_WORKERS: must be 0 or more, got -1"),
    (["MODEL.KEYPOINT_ON", "True"], "'keypoint_names' does not exist in the metadata of dataset 'own_train'"),
    (["MODEL.DEVICE", "hpu"], "MODEL.DEVICE / train.device: .*hpu"),
    (["ANALYSIS.RECORD", "True", "ANALYSIS.GRADIENT_PERIOD", "1", "ANALYSIS.GRADIENT_PARAMETER", "x"],
     "ANALYSIS .*gradient_parameter must be the name of a trainable parameter"),
    (["MODEL.DEVICE", "meta"], "MODEL.DEVICE / train.device: 'meta' has no memory for numbers"),
])  # fmt: skip
def test_what_only_a_run_refuses_is_told_before_training(words, message, tmp_path, capsys):
    data = make_dataset(tmp_path / "data")
    config, tiny = (LAZY, LAZY_TINY) if "=" in words[0] else (YAML, TINY)
    command = ["--config-file", config, *data_arguments(data, data), "--output-dir", tmp_path / "out", *tiny]
    assert train_net(*command, *words) == 2
    said = capsys.readouterr().err
    assert re.search(f"^train_net.py: error: .*{message}", said) and "Traceback" not in said
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_no_data_to_train_on(tmp_path, capsys):
    command = ["--config-file", YAML, "--output-dir", tmp_path / "out", *TINY, "DATASETS.TRAIN", "()"]
    assert train_net(*command) == 2
    assert "There is nothing to train on: give --train-json" in capsys.readouterr().err


@pytest.mark.parametrize("unreadable", ["annotations.json", "own.yaml"])
def test_a_file_without_permission_is_named(unreadable, tmp_path, capsys, monkeypatch):
    json_file, images = make_dataset(tmp_path)
    (tmp_path / "own.yaml").write_text(f"_BASE_: {YAML}\n")
    plain_open = builtins.open

    def refusing_open(file, *args, **kwargs):  # the tests may run as root, for whom every file is readable
        if isinstance(file, (str, os.PathLike)) and os.path.basename(file) == unreadable:
            raise PermissionError(13, "Permission denied", str(file))
        return plain_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refusing_open)
    words = ["--config-file", tmp_path / "own.yaml", *data_arguments((json_file, images)), "--output-dir", tmp_path / "out"]
    assert train_net(*words, *TINY) == 2
    assert re.search(rf"{unreadable}.*Permission denied", capsys.readouterr().err)


def test_a_device_that_is_not_there(monkeypatch):
    def no_such_device(*args, **kwargs):
        raise RuntimeError("CUDA error: invalid device ordinal. Compile with more.\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", no_such_device)
    with pytest.raises(LaunchError, match="'cuda:9' cannot be used here .CUDA error: invalid device ordinal.; use"):
        start.choose_device("cuda:9")


def test_processes_without_an_address(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LaunchError, match="cannot find each other: .*MASTER_ADDR"):
        distributed.launch(print)
    assert not torch.distributed.is_initialized()
