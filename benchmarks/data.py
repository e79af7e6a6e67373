"""What reading the data takes: of an image, and as a share of a training step with 0, 1 and 2 workers.

    python benchmarks/data.py --images 4 --size 640 --rounds 10 --workers 0 1 2

The generated set's scenes with the long side ``--size``, as JPEGs, are trained on at this size by the trainer of train_net.py.
Share: the time that a step waits for its images, over the time of the step.
"""

import json
import os
import statistics
import tempfile
import time

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.engine.hooks import IterationTimer
from interleave import benchmark_parser, environment, parse
from PIL import Image
from tabulate import tabulate

from d2_balanced.data.generated import annotation_file, generate
from d2_balanced.data.image_file import read_image
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from d2_balanced.engine.rng import ReseedEveryStep
from d2_balanced.engine.trainer import BalancedTrainer

NUM_FILES = 24


def jpegs(folder, size):
    """The generated set as JPEGs: annotation file and folder of images."""
    generate(folder, train_images=NUM_FILES, val_images=1, size=size)
    path, images = annotation_file(folder, "train"), os.path.join(folder, "train")
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    for image in content["images"]:
        png = os.path.join(images, image["file_name"])
        image["file_name"] = image["file_name"].replace(".png", ".jpg")
        Image.open(png).save(os.path.join(images, image["file_name"]), quality=90)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path, images


def milliseconds(function, repeat=20):
    """Median time of a call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def of_an_image(experiment, file_name, size):
    """Rows (what, milliseconds) of one image: opening, resizing from its size to 5/4 of it, and all of the mapper."""
    pixels = read_image(file_name, format="BGR")
    resize = T.ResizeShortestEdge(min(pixels.shape[:2]) * 5 // 4, size * 5 // 4).get_transform(pixels)
    record = DatasetCatalog.get(experiment.train_datasets[0])[0]
    mapper = experiment.build_mapper(True)
    yield "open and decode", milliseconds(lambda: read_image(file_name, format="BGR"))
    yield "resize to 5/4", milliseconds(lambda: resize.apply_image(pixels))
    yield "all of the mapper, at its own size", milliseconds(lambda: mapper(record))


def shares(args, data, folder):
    """Rows (workers, ms a step, ms waited for data, share), medians over the rounds."""
    for workers in args.workers:
        experiment = experiment_of(args, data, os.path.join(folder, str(workers)), workers)
        model = experiment.build_model()
        trainer = BalancedTrainer(model, experiment.build_loader(), experiment.build_optimizer(model))
        trainer.register_hooks([ReseedEveryStep(0), IterationTimer()])
        trainer.train(0, args.rounds + 2)  # the timer leaves out the first two
        waited, steps = ([value for value, _ in trainer.storage.history(name).values()] for name in ("data_time", "time"))
        waited = waited[-len(steps) :]
        wait, step = 1e3 * statistics.median(waited), 1e3 * statistics.median(steps)
        yield workers, f"{step:.0f}", f"{wait:.1f}", f"{wait / step:.1%}"


def experiment_of(args, data, output_dir, workers):
    words = ["SOLVER.IMS_PER_BATCH", str(args.images), "DATALOADER.NUM_WORKERS", str(workers), "DATASETS.TEST", "()"]
    words += ["INPUT.MIN_SIZE_TRAIN", f"({args.size * 3 // 4},)", "INPUT.MAX_SIZE_TRAIN", str(args.size)]
    words += ["MODEL.DEVICE", args.device, "MODEL.WEIGHTS", "", "OUTPUT_DIR", output_dir, *args.opts]
    experiment = open_experiment(args.config_file, words, OwnData(*data))
    experiment.use_own_data()
    experiment.set_run(seed=0)
    return experiment


def main():
    parser = benchmark_parser(__doc__, "configs/quick/faster_rcnn_R_18_FPN.yaml", rounds=10, images=4, size=640)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parse(parser)
    print(f"{args.config_file}, {args.images} JPEGs of {args.size} px a step; {environment(args.device)}\n")
    with tempfile.TemporaryDirectory() as folder:
        data = jpegs(os.path.join(folder, "data"), args.size)
        experiment = experiment_of(args, data, folder, 0)
        first = os.path.join(data[1], sorted(name for name in os.listdir(data[1]) if name.endswith(".jpg"))[0])
        rows = [(what, f"{ms:.1f}") for what, ms in of_an_image(experiment, first, args.size)]
        print(tabulate(rows, ["an image", "ms"], tablefmt="github", disable_numparse=True), "\n")
        headers = ["workers", "ms a step", "ms waited", "share"]
        print(tabulate(list(shares(args, data, folder)), headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
