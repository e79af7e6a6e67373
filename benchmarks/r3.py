"""R3-CNN's loop against detectron2's Cascade R-CNN with as many stages, interleaved in one run: boxes only.

    python benchmarks/r3.py --config-file projects/R3CNN/configs/r3_faster_rcnn_R_50_FPN_1x.yaml --images 2 --size 1024

Both have the config's thresholds and numbers of boxes, the same images and random numbers. A step is forward, backward
and optimizer. At inference no box passes the score threshold, so NMS, which is the same for both, is not timed.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from interleave import benchmark_parser, headline, memory_of_steps, parse, ratio_line, report, time_interleaved
from train_step import batch_of, config_of, inference, plain_detectron2, random_model, training_step

from d2_balanced.analysis.parameters import count_parameters

VARIANTS = ("Cascade R-CNN, detectron2", "R3-CNN")
LIMIT = 1.05


def config_of_variant(args, name):
    """The loop's config, or that of detectron2's cascade."""
    cfg = config_of(args)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    return cfg if name == "R3-CNN" else plain_detectron2(cfg)


def step_of(args, name):
    """A function that takes one training step of the variant."""
    cfg = config_of_variant(args, name)
    return training_step(cfg, batch_of(cfg, args))


def main():
    args = parse(benchmark_parser(__doc__, "projects/R3CNN/configs/r3_quick.yaml"))
    print(headline(args))
    models = {name: random_model(config_of_variant(args, name)) for name in VARIANTS}
    for name, model in models.items():
        print(f"{name}: {count_parameters(model)['all']:,} trainable parameters")
    batch = batch_of(config_of(args), args)
    found = {name: inference(model, batch) for name, model in models.items()}
    _compare("Inference", time_interleaved(found, args.rounds, args.device, clock=args.clock))
    del models, found
    steps = {name: step_of(args, name) for name in VARIANTS}
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    _compare("Training step", seconds, memory_of_steps(step_of, args, VARIANTS))


def _compare(title, seconds, memory=None):
    cascade, loop = seconds.values()
    print(f"\n{title}\n\n{report(seconds, memory)}\n\n{ratio_line('R3-CNN / Cascade R-CNN', loop, [cascade], LIMIT)}")


if __name__ == "__main__":
    main()
