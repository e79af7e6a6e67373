"""Two and four CPU processes: the gradients of one, exact resume, and the same evaluation as in one process."""

import json
import os
import subprocess
import sys

import pytest
import torch
from paths import ROOT

from d2_balanced.data.generated import generate

PROGRAM = os.path.join(ROOT, "tests", "engine", "multiprocess_program.py")
TRAIN_NET = os.path.join(ROOT, "train_net.py")
CONFIG = os.path.join(ROOT, "configs", "quick", "faster_rcnn_R_18_FPN.yaml")
# Small enough for seconds; score threshold 0, so that there are detections to compare.
SETTINGS = """
    MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.RPN.BATCH_SIZE_PER_IMAGE 32
    MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 INPUT.MIN_SIZE_TRAIN (64,)
    INPUT.MIN_SIZE_TEST 64 SOLVER.MAX_ITER 5 SOLVER.CHECKPOINT_PERIOD 3 TEST.EVAL_PERIOD 0
""".split()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(script, arguments, processes): run a script, alone or under torchrun, on a small generated data set."""
    data = tmp_path_factory.mktemp("data")
    generate(str(data / "generated"), train_images=12, val_images=6, size=64)
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT,
        "DETECTRON2_DATASETS": str(data),
    }  # fmt: skip

    def run(script, *arguments, processes=1):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), script, *map(str, arguments)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    return run


@pytest.fixture(scope="module")
def two_process_run(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    start(TRAIN_NET, "--config-file", CONFIG, "--output-dir", folder, *SETTINGS, processes=2)
    return folder


@pytest.fixture(scope="module")
def single_gradients(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    start(PROGRAM, "gradients", folder, "--config-file", CONFIG, *SETTINGS)
    return torch.load(folder / "gradients.pth", weights_only=True)


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    difference, size = (
        torch.cat([tensors[name].flatten() for name in expected]).norm()
        for tensors in ({name: found[name] - expected[name] for name in expected}, expected)
    )
    assert difference / size < 1e-5


def assert_same_training_state(first, second):
    """Weights, buffers and momentum, bit for bit."""
    first, second = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (first, second))
    assert first["iteration"] == second["iteration"] == 4
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    momenta, others = first["trainer"]["optimizer"]["state"], second["trainer"]["optimizer"]["state"]
    assert momenta.keys() == others.keys() and len(momenta) > 0
    for index, state in momenta.items():
        assert torch.equal(state["momentum_buffer"], others[index]["momentum_buffer"]), index


def test_two_processes(start, two_process_run, single_gradients):
    start(PROGRAM, "gradients,resume", two_process_run, "--config-file", CONFIG, *SETTINGS, processes=2)
    assert_same_gradients(torch.load(two_process_run / "gradients.pth", weights_only=True), single_gradients)
    assert_same_training_state(two_process_run / "resumed", two_process_run)


@pytest.mark.slow
def test_four_processes(start, tmp_path, single_gradients):
    start(PROGRAM, "gradients,train,resume", tmp_path, "--config-file", CONFIG, *SETTINGS, processes=4)
    assert_same_gradients(torch.load(tmp_path / "gradients.pth", weights_only=True), single_gradients)
    assert_same_training_state(tmp_path / "resumed", tmp_path)


def test_one_process_evaluates_to_the_same_as_two(start, two_process_run, tmp_path):
    weights = str(two_process_run / "model_final.pth")
    arguments = ["--eval-only", "--output-dir", tmp_path, *SETTINGS, "MODEL.WEIGHTS", weights]
    start(TRAIN_NET, "--config-file", CONFIG, *arguments)
    results, others = (
        (folder / "inference" / "generated_val" / "coco_instances_results.json").read_bytes()
        for folder in (two_process_run, tmp_path)
    )
    assert results == others and len(json.loads(results)) > 100
    metrics, others = (
        json.loads((folder / "inference" / "generated_val" / "metrics.json").read_text())
        for folder in (two_process_run, tmp_path)
    )
    assert metrics == others
