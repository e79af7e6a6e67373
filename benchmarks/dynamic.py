"""Training step and inference with Dynamic R-CNN against plain detectron2, interleaved in one run.

    python benchmarks/dynamic.py --config-file projects/DynamicRCNN/configs/dynamic_quick.yaml --rounds 30

Plain detectron2 has the same threshold (where the dynamic one starts) and SmoothL1, and both the same weights, images
and random numbers. A step is forward, backward, optimizer and, with Dynamic R-CNN, the end of the iteration, where
statistics are recorded and the values updated. Detections are compared before anything is timed: they must be equal.
"""

import functools

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.modeling import build_model
from interleave import benchmark_parser, headline, memory_of_steps, parse, report, time_interleaved
from train_step import batch_of, config_of, plain_detectron2, training_step

VARIANTS = ("detectron2", "dynamic")


def configs(args):
    """Both configs by name; the first is the reference."""
    cfg = config_of(args)
    plain = plain_detectron2(cfg)
    plain.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 1.0
    return dict(zip(VARIANTS, (plain, cfg)))


def step_of(args, name):
    """A function that takes one training step of the variant."""
    cfg = configs(args)[name]
    return training_step(cfg, batch_of(cfg, args), make_hook=ends_iterations)


def ends_iterations(model):
    """What the trainer's hook does in every step."""
    adaptive = [module for module in model.modules() if hasattr(module, "end_iteration")]
    iteration = [0]

    def end_iteration():
        for module in adaptive:
            module.end_iteration(iteration[0])
        iteration[0] += 1

    return end_iteration


def detectors(args):
    """Functions that detect, by name; both models have the same weights."""
    models = {}
    for name, cfg in configs(args).items():
        torch.manual_seed(0)
        models[name] = build_model(cfg).eval()
        batch = batch_of(cfg, args)
    with torch.no_grad():  # so that an untrained model is sure of something, and detects
        models["dynamic"].roi_heads.box_predictor.cls_score.weight.mul_(100)
    models["detectron2"].load_state_dict(models["dynamic"].state_dict(), strict=False)
    return {name: functools.partial(detect, model, batch) for name, model in models.items()}


@torch.no_grad()
def detect(model, batch):
    return [found["instances"] for found in model(batch)]


def require_equal_detections(detect_by_name):
    theirs, ours = (detect_by_name[name]() for name in VARIANTS)
    for a, b in zip(theirs, ours):
        same_boxes = torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        if len(a) == 0 or not (same_boxes and torch.equal(a.scores, b.scores)):
            raise SystemExit(f"The detections differ, or there are none to compare: {len(a)} and {len(b)} boxes.")
    return sum(map(len, theirs))


def main():
    args = parse(benchmark_parser(__doc__, "projects/DynamicRCNN/configs/dynamic_quick.yaml"))
    print(headline(args))
    detect_by_name = detectors(args)
    print(f"\nInference: the {require_equal_detections(detect_by_name)} detections are equal\n")
    print(report(time_interleaved(detect_by_name, args.rounds, args.device, clock=args.clock)))
    steps = {name: step_of(args, name) for name in VARIANTS}
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    print(f"\nTraining step\n\n{report(seconds, memory_of_steps(step_of, args, VARIANTS))}")


if __name__ == "__main__":
    main()
