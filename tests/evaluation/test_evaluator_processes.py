"""Two processes (gloo) give the same metrics and the same files, byte for byte, as one."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

PROGRAM = """
import sys
import d2_balanced  # first: it makes detectron2 importable
import torch.distributed as dist
from d2_balanced.evaluation import build_evaluator
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from evaluation.coco_data import random_dataset, random_results
from evaluation.conftest import as_dataset_dicts, model_outputs

rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
coco = random_dataset(0, num_images=13)
coco["images"].reverse()  # the loader's order is not that of the ids
DatasetCatalog.register("dicts", lambda: as_dataset_dicts(coco))
MetadataCatalog.get("dicts").set(thing_classes=[c["name"] for c in coco["categories"]])
inputs, outputs = model_outputs(coco, random_results(0, coco))
evaluator = build_evaluator("dicts", folder, by_objects=True, class_agnostic=True)
evaluator.reset()
for index in InferenceSampler(len(inputs)):
    evaluator.process([inputs[index]], [outputs[index]])
results = evaluator.evaluate()
assert (results["bbox"]["AP"] > 5) if rank == 0 else (results == {})
"""


def run_processes(folder, world_size):
    folder.mkdir()
    python_path = os.pathsep.join([ROOT, os.path.join(ROOT, "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    command = [sys.executable, "-c", PROGRAM]
    started = [
        subprocess.Popen([*command, str(rank), str(world_size), str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(world_size)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    run_processes(folder, 1)
    return folder


@pytest.mark.parametrize("world_size", [2])
def test_files_are_equal(one_process, tmp_path, world_size):
    run_processes(tmp_path / "run", world_size)
    for name in ("coco_instances_results.json", "metrics.json", "metrics.csv", "per_class.csv"):
        single = one_process / "inference" / "dicts" / name
        assert (tmp_path / "run" / "inference" / "dicts" / name).read_bytes() == single.read_bytes(), name
