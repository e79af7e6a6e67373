"""Cost of every sampler against detectron2's ``subsample_labels``, interleaved in one run.

    python benchmarks/samplers.py --proposals 2000 --images 1 2 16

One timed round draws the minibatches of a whole batch, ``--repeat`` times. Ratios are to ``subsample_labels``.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.modeling.sampling import subsample_labels
from interleave import benchmark_parser, environment, parse, report, time_interleaved

from d2_balanced.modeling.sampling import HardRatioSampler, InstanceBalancedSampler, IoUBalancedSampler, RandomSampler

NUM_CLASSES = 80
SAMPLERS = {
    "RandomSampler": RandomSampler(),
    "IoUBalancedSampler": IoUBalancedSampler(),
    "IoUBalancedSampler, max_overlap": IoUBalancedSampler(upper="max_overlap"),
    "IoUBalancedSampler, floor 0.1": IoUBalancedSampler(floor_thr=0.1, floor_fraction=0.3),
    "InstanceBalancedSampler": InstanceBalancedSampler(),
    "IoUBalancedSampler, instance_balanced": IoUBalancedSampler(positives="instance_balanced"),
    "HardRatioSampler": HardRatioSampler(),
}


def labelled_proposals(num, num_positives, num_objects, device, seed):
    """Labels, IoUs and matched objects as early in training: most negatives barely overlap anything."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((num,), NUM_CLASSES)
    labels[:num_positives] = torch.randint(NUM_CLASSES, (num_positives,), generator=generator)
    ious = 0.5 * torch.rand(num, generator=generator) ** 3
    ious[:num_positives] += 0.5
    matched_idxs = torch.randint(num_objects, (num,), generator=generator)
    order = torch.randperm(num, generator=generator)
    return tuple(x[order].to(device) for x in (labels, ious, matched_idxs))


def sample_batch(sampler, batch, args):
    def run():
        for _ in range(args.repeat):
            for labels, ious, matched_idxs in batch:
                sampler(labels, ious, matched_idxs, args.batch_size, args.positive_fraction, NUM_CLASSES)

    return run


def measure(args, num_images):
    settings = (args.proposals, args.positives, args.objects, args.device)
    batch = [labelled_proposals(*settings, seed=i) for i in range(num_images)]
    samplers = {"subsample_labels": lambda labels, ious, matched, *rest: subsample_labels(labels, *rest), **SAMPLERS}
    variants = {name: sample_batch(sampler, batch, args) for name, sampler in samplers.items()}
    return time_interleaved(variants, args.rounds, args.device, clock=args.clock)


def main():
    parser = benchmark_parser(__doc__, rounds=1000)  # short and many: a busy machine then spoils few
    parser.add_argument("--proposals", type=int, default=2000, help="labelled proposals an image")
    parser.add_argument("--positives", type=int, default=100, help="positives among them")
    parser.add_argument("--objects", type=int, default=12, help="objects that the positives match")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 16])
    parser.add_argument("--batch-size", type=int, default=512, help="samples an image")
    parser.add_argument("--positive-fraction", type=float, default=0.25)
    parser.add_argument("--repeat", type=int, default=1, help="batches a timed round")
    args = parse(parser)
    print(f"{args.proposals} proposals an image, {args.positives} of them positive; {environment(args.device)}")
    for num_images in args.images:
        print(f"\n{num_images} image(s), ms for {args.repeat} batches\n")
        print(report(measure(args, num_images)))


if __name__ == "__main__":
    main()
