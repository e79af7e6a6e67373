"""docs/CLUSTER.md: two machines, that is two torchrun agents on the loopback; pre-empted together, and resumed."""

import os
import signal
import socket
import subprocess
import sys
import time

import torch
from engine_toys import ToyLoader, toy_trainer
from paths import ROOT
from two_machines_program import NoMask, checkpointer_of

from d2_balanced.engine.checkpoint_files import checkpoints_in

PROGRAM = os.path.join(ROOT, "tests", "engine", "two_machines_program.py")


def agents(folder):
    """One torchrun for each machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([ROOT, os.path.join(ROOT, "tests")]),
    }  # fmt: skip
    place = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *place, f"--node_rank={rank}", PROGRAM, str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip


def test_two_machines_are_pre_empted_and_the_run_goes_on(tmp_path):
    machines = agents(tmp_path)
    deadline = time.monotonic() + 200
    while not (tmp_path / "at_3").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for machine in machines:
        machine.send_signal(signal.SIGTERM)
    said = [machine.communicate(timeout=100)[0] for machine in machines]
    assert all(machine.returncode for machine in machines)
    assert all("SIGTERM: stopping, with a checkpoint" in text for text in said), said
    assert sorted(path.name for path in tmp_path.glob("ended_*")) == ["ended_0_SIGTERM", "ended_1_SIGTERM"]
    (saved,) = checkpoints_in(str(tmp_path))

    resumed = toy_trainer(model=NoMask(), loader=ToyLoader(8))
    checkpointer = checkpointer_of(resumed, tmp_path)
    done = checkpointer.resume_or_load("", resume=True)["iteration"] + 1
    assert 3 < done < 100_000 and saved.endswith(f"model_{done - 1:07d}.pth")
    resumed.train(done, done + 5)
    whole = toy_trainer(model=NoMask(), loader=ToyLoader(8))
    whole.train(0, done + 5)
    torch.testing.assert_close(resumed.model.weight, whole.model.weight, rtol=1e-5, atol=1e-6)
