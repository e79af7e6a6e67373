"""R-CNN gradient annealing in real runs: a detector, mixed precision, processes, stop and resume, both configs."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from paths import ROOT
from tiny_runs import TINY, checkpoint, data_arguments, differences, make_dataset, quick_config, told, train_net

from annealing_toys import train_share
from config import twins
from d2_balanced.config import load_yaml
from d2_balanced.engine.gradient_annealing import GradientAnnealing, annealing_factor
from d2_balanced.engine.precision import MixedPrecision
from d2_balanced.engine.rng import ReseedEveryStep
from d2_balanced.engine.trainer import BalancedTrainer
from detectron2.modeling import build_model

TESTS = os.path.join(ROOT, "tests")
KEY, LAZY_KEY = "SOLVER.GRADIENT_ANNEALING", "train.gradient_annealing"
SCALED = ("roi_heads.box_head", "roi_heads.box_predictor")


@pytest.fixture(scope="module")
def detector():
    """The quick Faster R-CNN with few channels, and two images."""
    cfg = load_yaml(quick_config("faster_rcnn"), TINY)
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    return build_model(cfg), twins.inputs(cfg)


def first_gradients(detector, hooks, precision=None, accumulate=1):
    """The gradients that the optimizer sees in the first step."""
    model, images = detector
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    trainer = BalancedTrainer(model, [images], optimizer, accumulate=accumulate, precision=precision)
    trainer.register_hooks([ReseedEveryStep(0), *hooks])
    trainer.train(0, 1)
    for name, value in model.named_buffers():  # batch statistics
        value.copy_(buffers[name])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("amp, accumulate", [(False, 1), (False, 2), (True, 1)])
def test_backbone_and_rpn_gradients_are_the_same_bits(detector, amp, accumulate):
    precision = MixedPrecision("cpu") if amp else None
    plain = first_gradients(detector, [], precision, accumulate)
    annealed = first_gradients(detector, [GradientAnnealing(detector[0], initial=7.0)], precision, accumulate)
    assert plain.keys() == annealed.keys()
    scaled = [name for name in plain if name.startswith(SCALED)]
    assert len(scaled) == 8 and any(name.startswith("proposal_generator") for name in plain)
    for name, gradient in plain.items():
        assert gradient.dtype == torch.float32
        assert torch.equal(annealed[name], 7 * gradient if name in scaled else gradient), name
        assert name not in scaled or gradient.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fp16_gradients_are_scaled_after_the_loss_scale_is_taken_out(detector):
    model, images = copy.deepcopy(detector[0]).cuda(), detector[1]
    precision = MixedPrecision("cuda")
    state = precision.state_dict()
    precision.load_state_dict({"scaler": {**state["scaler"], "scale": 128.0}})  # no overflow in the first step
    plain = first_gradients((model, images), [], precision)
    annealed = first_gradients((model, images), [GradientAnnealing(model, initial=7.0)], precision)
    for name, gradient in plain.items():  # RoIAlign's backward adds in any order on a GPU
        expected = 7 * gradient if name.startswith(SCALED) else gradient
        assert (annealed[name] - expected).norm() <= 1e-2 * expected.norm(), name


def test_two_processes_scale_the_reduced_gradients(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([ROOT, TESTS])}
    command = [sys.executable, os.path.join(TESTS, "annealing_toys.py")]
    started = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert differences(first, second) == []
    for name, gradient in first["plain"]["gradients"].items():
        expected = 7 * gradient if name.startswith(SCALED) else gradient
        assert torch.equal(first["annealed"]["gradients"][name], expected), name
    alone = train_share(0, 1, 7.0)
    for name, weight in first["annealed"]["weights"].items():
        torch.testing.assert_close(weight, alone["weights"][name])


@pytest.fixture(scope="module")
def data_words(tmp_path_factory):
    return data_arguments(make_dataset(tmp_path_factory.mktemp("data")))


def test_stops_at_any_iteration_change_no_bit(data_words, tmp_path, monkeypatch):
    """Stopped twice, against a run that was not; the factor in metrics.json is that of equation 1."""
    config = ["--config-file", quick_config("faster_rcnn"), *data_words]
    settings = [*TINY, "SOLVER.MAX_ITER", 8, "SEED", 5, "SOLVER.LOG_PERIOD", 1, f"{KEY}.INITIAL", 7.0]
    parts = [("parts", [], 1), ("parts", ["--resume"], 5), ("parts", ["--resume"], None)]
    for name, extra, stop in [("straight", [], None), *parts]:
        words = [*config, "--output-dir", tmp_path / name, *extra, *settings]
        assert train_net(*words, stop_after=stop, monkeypatch=monkeypatch) == (143 if stop else 0)
    assert differences(checkpoint(tmp_path / "straight"), checkpoint(tmp_path / "parts")) == []
    assert told(tmp_path / "parts") == told(tmp_path / "straight")
    name = "gradient_annealing/factor"
    factors = [line[name] for line in told(tmp_path / "parts") if name in line]
    assert factors == [annealing_factor(7.0, t, 8) for t in range(8)]


def test_lazy_runs_are_annealed_too(data_words, tmp_path):
    words = ["--config-file", quick_config("faster_rcnn", "py"), *data_words, "--output-dir", tmp_path]
    settings = ["train.max_iter=2", "train.log_period=1", "train.gradient_annealing.initial=3.0"]
    settings += ["train.gradient_annealing.annealed=false", "dataloader.train.total_batch_size=2"]
    assert train_net(*words, *settings) == 0
    assert [line["gradient_annealing/factor"] for line in told(tmp_path) if "total_loss" in line] == [3.0, 3.0]


@pytest.mark.parametrize(
    "suffix, settings, words",
    [
        ("yaml", [f"{KEY}.INITIAL", "0.5"], [KEY, "lambda_0", "at least 1", "0.5"]),
        ("yaml", [f"{KEY}.INITIAL", "seven"], [f"{KEY}.INITIAL", "expected float", "seven"]),
        ("yaml", [f"{KEY}.INTIAL", "7.0"], [f"{KEY}.INTIAL", "Did you mean INITIAL"]),
        ("yaml", [f"{KEY}.INITIAL", "7.0", f"{KEY}.TOTAL", "0"], [KEY, "total", "from 1", "0"]),
        ("yaml", [f"{KEY}.INITIAL", "7.0", f"{KEY}.MODEL", "x"], [f"{KEY}.MODEL", "no argument"]),
        ("yaml", [f"{KEY}.ANNEALED", "False"], [KEY, "annealed", "initial is 1"]),
        ("py", [f"{LAZY_KEY}.initial=0.5"], [LAZY_KEY, "lambda_0", "at least 1", "0.5"]),
        ("py", [f"{LAZY_KEY}.intial=7.0"], [f"{LAZY_KEY}.intial", "mean train.gradient_annealing.initial"]),
        ("py", [f"{LAZY_KEY}.initial=seven"], [f"{LAZY_KEY}.initial", "expected float", "seven"]),
        ("py", [f"{LAZY_KEY}.total=10"], [LAZY_KEY, "total", "initial is 1"]),
    ],
)
def test_mistakes_are_told_before_data_are_read(suffix, settings, words, tmp_path, capsys):
    nowhere = ["--train-json", "nowhere.json", "--train-images", "nowhere", "--output-dir", tmp_path / "run"]
    assert train_net("--config-file", quick_config("faster_rcnn", suffix), *nowhere, *settings) == 2
    told_user = capsys.readouterr().err
    assert all(word in told_user for word in words), told_user
    assert "nowhere" not in told_user


@pytest.mark.parametrize("suffix, settings", [("yaml", [f"{KEY}.INITIAL", "7.0"]), ("py", [f"{LAZY_KEY}.initial=7.0"])])
def test_retinanet_is_refused_when_it_is_built(suffix, settings, data_words, tmp_path, capsys):
    words = ["--config-file", quick_config("retinanet", suffix), *data_words, "--output-dir", tmp_path]
    assert train_net(*words, *settings) == 2
    message = capsys.readouterr().err
    assert "GRADIENT_ANNEALING" in message.upper() and "RetinaNet" in message and "two-stage detector" in message
