"""One process of an evaluation, for test_evaluator_processes.py: python evaluate_process.py RANK WORLD_SIZE FOLDER."""

import os
import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import torch.distributed as dist
from d2_balanced.evaluation import build_evaluator
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from evaluation.coco_data import random_dataset, random_results
from evaluation.conftest import as_dataset_dicts, model_outputs

NAME = "evaluation_test_processes"


def evaluate(folder):
    """Evaluates this process's share of a fixed data set; returns what the evaluator returns."""
    coco = random_dataset(0, num_images=13)
    coco["images"].reverse()  # the loader's order is not that of the ids
    DatasetCatalog.register(NAME, lambda: as_dataset_dicts(coco))
    MetadataCatalog.get(NAME).set(thing_classes=[c["name"] for c in coco["categories"]])
    inputs, outputs = model_outputs(coco, random_results(0, coco))
    evaluator = build_evaluator(NAME, folder, by_objects=True, class_agnostic=True)
    evaluator.reset()
    for index in InferenceSampler(len(inputs)):
        evaluator.process([inputs[index]], [outputs[index]])
    results = evaluator.evaluate()
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)
    return results


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    results = evaluate(folder)
    assert (results["bbox"]["AP"] > 5) if rank == 0 else (results == {})
    comm.synchronize()  # whoever leaves first must not break the connection of who still talks
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads can abort a busy interpreter that cleans up: all that is tested has happened
