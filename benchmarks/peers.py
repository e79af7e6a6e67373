"""Training step of the small detector with a treatment of ``projects/Peers`` against the same step without, in one run.

    python benchmarks/peers.py --treatments ohem pisa sampling_free --images 2 --rounds 12 --cpu-time

A treatment is the name of a config of ``projects/Peers/configs/quick``.
"""

import argparse

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from interleave import benchmark_parser, headline, memory_of_steps, parse, report, time_interleaved
from train_step import batch_of, config_of, training_step

PLAIN = "configs/quick/faster_rcnn_R_18_FPN.yaml"
TREATMENTS = ["ohem", "ohem_fraction", "pisa", "iou_balanced", "class_balanced_rois", "sampling_free", "double_head"]


def step_of(args, name):
    """A function that takes one training step of the plain detector, or of one with a treatment."""
    file = args.config_file if name == "plain" else f"Peers/quick/{name}"
    cfg = config_of(argparse.Namespace(**{**vars(args), "config_file": file}))
    return training_step(cfg, batch_of(cfg, args))


def main():
    parser = benchmark_parser(__doc__, PLAIN, rounds=12, images=2)
    parser.add_argument("--treatments", nargs="+", default=TREATMENTS)
    args = parse(parser)
    variants = ["plain", *args.treatments]
    steps = {name: step_of(args, name) for name in variants}
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    print(f"{headline(args)}\n\n{report(seconds, memory_of_steps(step_of, args, variants))}")


if __name__ == "__main__":
    main()
