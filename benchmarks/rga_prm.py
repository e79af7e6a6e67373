"""Cost of R-CNN gradient annealing and of a second R-CNN module, interleaved with plain detectron2 in one run.

    python benchmarks/rga_prm.py --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --size 1024 --images 2

Training: plain detectron2, the same with annealing, two modules (1:1 and 1:9), and one more module alone: its RoIs are
pooled, go through box head, losses and backward, and its weights are stepped. Inference: one module, two modules.
All variants of the config have a single stage.
"""

from types import SimpleNamespace

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.utils.events import EventStorage
from interleave import benchmark_parser, headline, parse, ratio_line, report, time_interleaved
from train_step import batch_of, config_of, inference, plain_detectron2, random_model, training_step

from d2_balanced.engine.gradient_annealing import GradientAnnealing

BRANCHES = [{"POSITIVE_FRACTION": 0.5}, {"POSITIVE_FRACTION": 0.1}]


def two_modules(cfg):
    """The config with parallel R-CNN modules."""
    cfg = cfg.clone()
    cfg.MODEL.BALANCED.BRANCHES = BRANCHES
    return cfg


def annealing(model):
    """What happens before the optimizer steps."""
    hook = GradientAnnealing(model, initial=7.0)
    hook.trainer = SimpleNamespace(iter=0, max_iter=90000, storage=EventStorage())
    return hook.scale_gradients


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


def main():
    args = parse(benchmark_parser(__doc__, "configs/quick/faster_rcnn_R_18_FPN.yaml"))
    cfg = config_of(args)
    batch = batch_of(cfg, args)
    steps = {
        "detectron2": training_step(plain_detectron2(cfg), batch),
        "annealing": training_step(cfg, batch, annealing),
        "two modules": training_step(two_modules(cfg), batch),
        "one more module, alone": module_step(cfg, batch),
    }
    print(headline(args), "\n")
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    print(report(seconds), "\n")
    plain, annealed, two, module = seconds.values()
    print(ratio_line("annealing / detectron2", annealed, [plain], 1.01))
    print(ratio_line("two modules / (detectron2 + one more module alone)", two, [plain, module], 1.0), "\n")
    models = {"one module": random_model(cfg), "two modules": random_model(two_modules(cfg))}
    detectors = {name: inference(model, batch) for name, model in models.items()}
    seconds = time_interleaved(detectors, args.rounds, args.device, clock=args.clock)
    print(report(seconds), "\n")
    print(ratio_line("inference, two modules / one", seconds["two modules"], [seconds["one module"]], 1.1))


if __name__ == "__main__":
    main()
