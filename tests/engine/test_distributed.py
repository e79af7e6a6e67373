"""Start-up of one process and of several, and what they share."""

import json
import os
import subprocess
import sys

import pytest
import torch
from paths import ROOT

from d2_balanced.engine import distributed
from d2_balanced.engine.distributed import launch, place_from_environment
from d2_balanced.utils.reductions import gather_over_processes, reduce_sum

PROGRAM = os.path.join(ROOT, "tests", "engine", "distributed_program.py")


def torchrun(*arguments, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
    return subprocess.run([*command, PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=240)


def test_two_processes_started_by_torchrun(tmp_path):
    result = torchrun("main", str(tmp_path))
    assert result.returncode == 0, result.stderr
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [report.pop("place") for report in reports] == [[0, 2, 0, 2], [1, 2, 1, 2]]
    first, second = (report.pop("images") for report in reports)
    assert len(first) == len(second) == 2 and len({*first, *second}) == 4
    assert reports[0].pop("draws") != reports[1].pop("draws")

    assert reports[0] == reports[1]
    report = reports[0]
    assert report["sum"] == [2, 10]
    assert report["gathered"] == [[0.0, 1.0], [10.0, 1.0]]
    assert report["objects"] == [{"rank": 0}, {"rank": 1}]
    assert report["gradients"] == [3.0, True]
    assert report["buffers"] == {"flags": [True, False], "mean": [[0.0], [0.0]], "count": 5, "none": []}


def test_an_error_in_one_process_ends_all_of_them(tmp_path):
    result = torchrun("fail", str(tmp_path))
    assert result.returncode != 0
    assert "ArithmeticError: on purpose" in result.stderr


def test_a_single_process_calls_main_and_changes_nothing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for num_gpus in (0, 1):
        assert launch(lambda a, b: (a, b), (1, 2), num_gpus=num_gpus) == (1, 2)
    assert not torch.distributed.is_initialized()
    tensor, model = torch.rand(3, requires_grad=True), torch.nn.Linear(1, 1)
    total = reduce_sum(tensor)
    assert torch.equal(total, tensor) and not total.requires_grad and total.data_ptr() != tensor.data_ptr()
    assert torch.equal(gather_over_processes(tensor.detach()), tensor[None])
    assert distributed.wrap_ddp(model) is model
    distributed.broadcast_buffers(model)


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"--num-gpus 2 needs as many CUDA devices.*torchrun --nproc_per_node 2"):
        launch(print, num_gpus=2)


def test_gpus_of_this_machine_are_left_to_detectron2s_launcher(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(distributed, "detectron2_launch", lambda *args, **kwargs: calls.append((args, kwargs)))
    launch(print, ("x",), num_gpus=4, num_machines=2, machine_rank=1, dist_url="tcp://host:1")
    assert calls == [((distributed._run_and_leave, 4, 2, 1, "tcp://host:1"), {"args": (print, ("x",))})]


@pytest.mark.parametrize(
    "request_, message",
    [
        (dict(num_gpus=-1), r"--num-gpus must be at least 0.*got -1, 1 and 0"),
        (dict(num_machines=2, machine_rank=2), r"--machine-rank below it; got 1, 2 and 2"),
        (dict(num_gpus=2, num_machines=2), r"several machines need --dist-url tcp://"),
    ],
)
def test_impossible_requests(request_, message):
    with pytest.raises(ValueError, match=message):
        launch(print, **request_)


def test_torchrun_and_num_gpus_contradict_each_other(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="has started 2 processes already; leave out --num-gpus 2"):
        launch(print, num_gpus=2)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="process 1 of this machine has no GPU: there are 1.*CUDA_VISIBLE_DEVICES="):
        launch(print)


def test_places():
    torchrun_environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert place_from_environment(torchrun_environment) == (5, 8, 1, 4)
    assert place_from_environment({}) is None
    # an sbatch script that was not started by srun is one process, whatever it was promised
    assert place_from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}) is None


@pytest.mark.parametrize(
    "nodes, first",
    [("gpu[03-04]", "gpu03"), ("a-1,b-2", "a-1"), ("n7", "n7"), ("gpu[3,5-7],x", "gpu3"), ("r[1-2]n[3-4]", "r1n3")],
)
def test_place_given_by_srun(nodes, first):
    environment = {
        "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "30123",
    }  # fmt: skip
    assert place_from_environment(environment) == (5, 8, 1, 4)
    assert environment["MASTER_ADDR"] == first and environment["MASTER_PORT"] == "30123"
    assert environment["RANK"] == "5" and environment["WORLD_SIZE"] == "8"
