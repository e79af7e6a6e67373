"""Predicting on the images of a folder with a trained detector, with several numbers of images a pass, interleaved.

    python benchmarks/predict.py --run output/mine --images my/val --batches 1 4 --rounds 5 --cpu-time

Reading and resizing the images are a part of it, as in ``d2_balanced predict``; drawing is not. A round is all images.
"""

import functools

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from interleave import benchmark_parser, environment, parse, report, time_interleaved

from d2_balanced.inference import Predictor
from d2_balanced.inference.images import find_images


def main():
    parser = benchmark_parser(__doc__, rounds=5)
    parser.add_argument("--run", required=True, help="output folder of a training")
    parser.add_argument("--images", required=True, nargs="+")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="images a pass")
    parser.add_argument("--set", nargs="+", default=[], metavar="WORD", help="overrides of the run's config")
    args = parse(parser)
    paths = find_images(args.images, "--images")
    predictor = Predictor.from_run(args.run, device=args.device, overrides=args.set)
    variants = {f"{size} a pass": functools.partial(predictor, paths, batch_size=size) for size in args.batches}
    seconds = time_interleaved(variants, args.rounds, args.device, warmup=1, clock=args.clock)
    print(f"{len(paths)} images, {args.rounds} rounds; {environment(args.device)}\n\n{report(seconds)}")


if __name__ == "__main__":
    main()
