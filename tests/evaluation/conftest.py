"""Registered data sets with random ground truth, and predictions as a model would give them."""

import itertools
import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, BoxMode, Instances

from evaluation.coco_data import SIZE

_numbers = itertools.count()


@pytest.fixture
def registered(tmp_path):
    """``registered(coco, json_file=True)``: name of a data set with this COCO content, removed after the test."""
    names = []

    def register(coco, json_file=True, **metadata):
        name = f"evaluation_test_{next(_numbers)}"
        names.append(name)
        if json_file:
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(coco))
            register_coco_instances(name, metadata, str(path), str(tmp_path))
            DatasetCatalog.get(name)  # as a test loader does: it fills the metadata
        else:
            DatasetCatalog.register(name, lambda: as_dataset_dicts(coco))
            MetadataCatalog.get(name).set(thing_classes=[c["name"] for c in coco["categories"]], **metadata)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def as_dataset_dicts(coco):
    """detectron2's dataset dicts of a COCO dict."""
    index = {category["id"]: k for k, category in enumerate(coco["categories"])}
    records = []
    for image in coco["images"]:
        record = {"image_id": image["id"], "file_name": image["file_name"], "height": SIZE, "width": SIZE}
        record["annotations"] = [
            {
                "bbox": a["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": index[a["category_id"]],
                "iscrowd": a["iscrowd"],
            }
            for a in coco["annotations"]
            if a["image_id"] == image["id"]
        ]
        records.append(record)
    return records


def model_outputs(coco, results):
    """(inputs, outputs) per image, as ``inference_on_dataset`` passes them, from COCO results."""
    index = {category["id"]: k for k, category in enumerate(coco["categories"])}
    inputs, outputs = [], []
    for image in coco["images"]:
        here = [r for r in results if r["image_id"] == image["id"]]
        instances = Instances((SIZE, SIZE))
        boxes = torch.tensor([r["bbox"] for r in here], dtype=torch.float64).reshape(-1, 4)
        instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        instances.scores = torch.tensor([r["score"] for r in here], dtype=torch.float64)
        instances.pred_classes = torch.tensor([index[r["category_id"]] for r in here], dtype=torch.int64)
        inputs.append({"image_id": image["id"]})
        outputs.append({"instances": instances})
    return inputs, outputs
