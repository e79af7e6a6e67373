"""Several images a pass at evaluation: all of them once, only equal sizes together; and the same detections."""

import json

import pytest
import torch
from tiny_runs import TINY, data_arguments, make_dataset, quick_config, train_net

from d2_balanced.data.test_batches import SameSizeBatches


def loader_of(sizes):
    return [[{"image": torch.zeros(3, *size), "image_id": index}] for index, size in enumerate(sizes)]


def ids(batches):
    return [[image["image_id"] for image in batch] for batch in batches]


WIDE, TALL, SQUARE = (2, 3), (3, 2), (3, 3)


@pytest.mark.parametrize("sizes, batch_size, expected", [
    ([WIDE, TALL, WIDE, TALL, TALL], 2, [[0, 2], [1, 3], [4]]),
    ([WIDE, TALL, SQUARE], 4, [[0], [1], [2]]),
    ([WIDE] * 5, 2, [[0, 1], [2, 3], [4]]),
    ([WIDE, TALL], 1, [[0], [1]]),
    ([], 2, []),
])  # fmt: skip
def test_batches_of_one_size(sizes, batch_size, expected):
    assert ids(SameSizeBatches(loader_of(sizes), batch_size)) == expected


def test_few_images_wait():
    given = Counted(loader_of([(n, 1) for n in range(1, 100)]))
    batches = SameSizeBatches(given, 2)
    taken = waiting = 0
    for batch in batches:
        taken += len(batch)
        waiting = max(waiting, given.count - taken)
    assert taken == 99 and 0 < waiting <= 16
    assert len(batches) == 99


class Counted(list):
    count = 0

    def __iter__(self):
        for each in super().__iter__():
            self.count += 1
            yield each


def test_the_evaluation_finds_the_same(tmp_path):
    config = ["--config-file", quick_config("faster_rcnn")]
    data = data_arguments(make_dataset(tmp_path / "train"), make_dataset(tmp_path / "val", images=5, seed=1))
    words = [*TINY, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    run = str(tmp_path / "run")
    assert train_net(*config, *data, "--output-dir", run, *words, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0) == 0
    found = []
    for batch_size in (1, 3):
        folder = tmp_path / str(batch_size)
        more = ["MODEL.WEIGHTS", f"{run}/model_final.pth", "TEST.IMS_PER_BATCH", batch_size]
        assert train_net("--eval-only", *config, *data, "--output-dir", folder, *words, *more) == 0
        (path,) = folder.glob("inference/*/coco_instances_results.json")
        found.append(sorted(json.loads(path.read_text()), key=lambda each: (each["image_id"], -each["score"])))
    assert [each["image_id"] for each in found[0]] == [each["image_id"] for each in found[1]] and len(found[0]) > 20
    for one, other in zip(*found):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
