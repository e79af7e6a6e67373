"""Two processes (gloo) give the same metrics and the same files, byte for byte, as one."""

import os
import subprocess
import sys

from evaluation import evaluate_process
from paths import ROOT

TESTS = os.path.join(ROOT, "tests")


def run_processes(folder, world_size):
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([ROOT, TESTS])}
    program = os.path.join(TESTS, "evaluation", "evaluate_process.py")
    started = [
        subprocess.Popen(
            [sys.executable, program, str(rank), str(world_size), str(folder)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(world_size)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


def test_two_processes_write_the_files_of_one(tmp_path):
    evaluate_process.evaluate(str(tmp_path / "one"))
    run_processes(tmp_path / "two", 2)
    for name in ("coco_instances_results.json", "metrics.json", "metrics.csv", "per_class.csv"):
        one, two = (tmp_path / run / "inference" / evaluate_process.NAME / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
