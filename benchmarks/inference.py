"""Detection at neutral settings, with layers as ``MODEL.LAYERS`` can have them and several images a pass, against plain
detectron2 with one image a pass, interleaved.

    python benchmarks/inference.py --images 8 --batches 1 4 8 --rounds 10 --cpu-time

All models have the same random weights; a round is the given number of images, all of one size. Scores are cut off at
``--score``, so that boxes are left for NMS and the last steps.
"""

import torch
from interleave import benchmark_parser, headline, parse, report, time_interleaved
from train_step import LAYERS, batch_of, config_of, plain_detectron2, random_model


def detects(cfg, batch, at_once):
    """A function that finds objects in all images of the batch, ``at_once`` a pass."""
    model = random_model(cfg).eval()
    passes = [batch[start : start + at_once] for start in range(0, len(batch), at_once)]

    def detect():
        with torch.no_grad():
            return [found["instances"] for images in passes for found in model(images)]

    return detect


def variants_of(args):
    """``{name: function}``; plain detectron2, which has one image a pass, first."""
    cfg = config_of(args)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = args.score
    batch = batch_of(cfg, args)
    variants = {"detectron2, 1": detects(plain_detectron2(cfg), batch, 1)}
    for layers in args.variants:
        for at_once in args.batches:
            own = cfg.clone()
            own.MODEL.LAYERS.update(LAYERS[layers])
            variants[f"{layers}, {at_once}"] = detects(own, batch, at_once)
    return variants


def main():
    parser = benchmark_parser(__doc__, "configs/quick/faster_rcnn_R_18_FPN.yaml", images=8, rounds=10)
    parser.add_argument("--variants", nargs="+", choices=list(LAYERS)[1:], default=["d2_balanced", "bfloat16, channels last"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="images a pass")
    parser.add_argument("--score", type=float, default=0.01)
    args = parse(parser)
    variants = variants_of(args)
    print(f"{headline(args)}\n\n{report(time_interleaved(variants, args.rounds, args.device, clock=args.clock))}")


if __name__ == "__main__":
    main()
