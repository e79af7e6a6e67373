"""Cost of R-CNN gradient annealing and of a second R-CNN module, interleaved with plain detectron2 in one run.

    python benchmarks/rga_prm.py --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --size 1024 --images 2

Training: plain detectron2, the same with annealing, two modules (1:1 and 1:9), and one more module alone: its RoIs are
pooled, go through box head, losses and backward, and its weights are stepped. Inference: one module, two modules.
All variants of the config have a single stage.
"""

import argparse
import statistics
from types import SimpleNamespace

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.utils.events import EventStorage
from interleave import environment, report, time_interleaved
from train_step import images, plain_detectron2, random_model, training_step

from d2_balanced.config import load_yaml
from d2_balanced.engine.gradient_annealing import GradientAnnealing

BRANCHES = [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]


def two_modules(cfg):
    """The config with parallel R-CNN modules."""
    cfg = cfg.clone()
    cfg.MODEL.BALANCED.BRANCHES = BRANCHES
    return cfg


def annealing(model):
    """What the trainer calls after the backward."""
    hook = GradientAnnealing(model, initial=7.0)
    hook.trainer = SimpleNamespace(iter=0, max_iter=90000, storage=EventStorage())
    return hook.after_backward


def module_step(cfg, batch):
    """A function that takes one optimizer step of a box head and predictor alone, on given feature maps and samples."""
    model = random_model(cfg).train()
    heads, device = model.roi_heads, model.device
    targets = [x["instances"].to(device) for x in batch]
    with torch.no_grad(), EventStorage():
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        # The boxes that the whole model would pool: the time depends on their sizes.
        proposals, _ = model.proposal_generator(images, features, targets)
        samples = heads.label_and_sample_proposals(proposals, targets)
    maps = [features[name].requires_grad_() for name in heads.box_in_features]
    parameters = [*heads.box_head.parameters(), *heads.box_predictor.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=cfg.SOLVER.BASE_LR, momentum=0.9, weight_decay=1e-4)

    def step():
        pooled = heads.box_pooler(maps, [s.proposal_boxes for s in samples])
        with EventStorage():
            losses = heads.box_predictor.losses(heads.box_predictor(heads.box_head(pooled)), samples)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    return step


def inference(cfg, batch):
    """A function that detects objects in the batch."""
    model = random_model(cfg).eval()

    def detect():
        with torch.no_grad():
            model(batch)

    return detect


def _ratio(name, times, limits, limit=None):
    """One line: median and quartiles of the time over a sum of other times, within the rounds."""
    ratios = [t / sum(parts) for t, *parts in zip(times, *limits)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{name}: {middle:.3f} ({low:.3f} - {high:.3f})" + (f", asked for at most {limit}" if limit else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/quick/faster_rcnn_R_18_FPN.yaml")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="side of the square images, in pixels")
    parser.add_argument("--objects", type=int, default=10, help="objects an image")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("opts", nargs="*", help="overrides of config keys: KEY VALUE ...")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg = load_yaml(args.config_file, args.opts)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = args.device, ""
    batch = images(cfg, args.images, args.size, args.objects)
    steps = {
        "detectron2": training_step(plain_detectron2(cfg), batch),
        "annealing": training_step(cfg, batch, annealing),
        "two modules": training_step(two_modules(cfg), batch),
        "one more module, alone": module_step(cfg, batch),
    }
    print(f"{args.config_file}, {args.images} images of {args.size} px, {args.rounds} rounds")
    print(environment(args.device), "\n")
    seconds = time_interleaved(steps, args.rounds, args.device)
    print(report(seconds), "\n")
    plain, annealed, two, module = seconds.values()
    print(_ratio("annealing / detectron2", annealed, [plain], 1.01))
    print(_ratio("two modules / (detectron2 + one more module alone)", two, [plain, module], 1.0), "\n")
    seconds = time_interleaved({"one module": inference(cfg, batch), "two modules": inference(two_modules(cfg), batch)},
                               args.rounds, args.device)  # fmt: skip
    print(report(seconds), "\n")
    print(_ratio("inference, two modules / one", seconds["two modules"], [seconds["one module"]], 1.1))


if __name__ == "__main__":
    main()
