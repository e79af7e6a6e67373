"""The trainer in two processes: the steps of one, with accumulation; one that stops or fails stops both."""

import os
import subprocess
import sys

import pytest
import torch
from engine_toys import ToyLoader, toy_trainer
from paths import ROOT
from toy_processes_program import NoMask

PROGRAM = os.path.join(ROOT, "tests", "engine", "toy_processes_program.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([ROOT, os.path.join(ROOT, "tests")]),
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", PROGRAM, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in (0, 1)]


def test_accumulation_in_two_processes_is_the_step_of_one(found):
    alone = toy_trainer(model=NoMask(), loader=ToyLoader(8))
    alone.train(0, 5)
    assert torch.equal(found[0]["weight"], found[1]["weight"])
    torch.testing.assert_close(found[0]["weight"], alone.model.weight.detach(), rtol=1e-5, atol=1e-6)
    losses = [value for value, _ in alone.storage.history("total_loss").values()]
    assert found[0]["losses"] == found[1]["losses"] == pytest.approx(losses, rel=1e-5)


def test_both_stop_after_the_same_iteration(found):
    assert found[0]["stopped"] == [3, "another process asked for it"] and found[1]["stopped"] == [3, "SIGTERM"]


def test_both_fail_where_one_has_a_loss_that_is_not_finite(found):
    assert found[0]["failed"] == [2, "image_2_0.png (image id 200)"]
    assert found[1]["failed"] == [2, "image_2_1.png (image id 201)"]
