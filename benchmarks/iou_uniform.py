"""Cost of IoU-Uniform R-CNN, interleaved in one run with what it is compared to.

    python benchmarks/iou_uniform.py generator
    python benchmarks/iou_uniform.py detector --images 2 --size 1024 \\
        --config-file projects/IoUUniformRCNN/configs/iou_uniform_faster_rcnn_R_50_FPN_1x.yaml

generator: boxes of one image with 1 to 100 objects, against detectron2's ``subsample_labels`` at 2000 proposals, with
and without the cap for crowds; and the released sampler's rejection, vectorised. detector: training step and inference
with the IoU branch, with and without EFO, against plain detectron2. A detector without training finds nothing: the score
threshold is set so that ``--candidates`` proposals an image pass it.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.modeling import build_model
from detectron2.modeling.sampling import subsample_labels
from interleave import benchmark_parser, environment, headline, parse, ratio_line, report, time_interleaved
from train_step import batch_of, config_of, plain_detectron2, training_step

from d2_balanced.modeling.iou_uniform import RejectionIoUGenerator, UniformIoUGenerator

SIZE = (800, 1333)
LIMITS = {10: 10, 40: 42, 100: 170}  # times subsample_labels, by objects


def random_objects(num, device, seed=0):
    """Boxes (num, 4) of 30 to 180 pixels anywhere in an image, so that some of them overlap."""
    generator = torch.Generator().manual_seed(seed)
    side = 30 + 150 * torch.rand(num, 2, generator=generator)
    corner = torch.rand(num, 2, generator=generator) * (torch.tensor([SIZE[1], SIZE[0]]) - side)
    return torch.cat([corner, corner + side], dim=1).to(device)


def repeated(function, repeat):
    """A function that calls this one so often, as a busy machine's caches are cold at the first call."""

    def run():
        for _ in range(repeat):
            function()

    return run


def generators(device, released):
    """``{name: function}``: the sampler that they are compared to, and a call of every generator an object count."""
    labels = torch.full((2000,), 80, device=device)
    labels[:100] = 1
    variants = {"subsample_labels": lambda: subsample_labels(labels, 512, 0.25, 80)}
    kinds = {"uniform": UniformIoUGenerator(max_per_image=1 << 20), "uniform, at most 2048": UniformIoUGenerator()}
    if released:
        kinds["released"] = RejectionIoUGenerator()
    for name, generator in kinds.items():
        for num in (1, 10, 40, 100):
            call = (generator.to(device), [random_objects(num, device)], [SIZE])
            variants[f"{name}, {num} objects"] = lambda call=call: call[0](*call[1:])
    return variants


def compare_generators(args):
    variants = {k: repeated(v, args.repeat) for k, v in generators(args.device, args.released).items()}
    seconds = time_interleaved(variants, args.rounds, args.device, clock=args.clock)
    print(f"generator, ms of {args.repeat} calls, {args.rounds} rounds; {environment(args.device)}\n")
    print(report(seconds), "\n")
    for num, limit in LIMITS.items():
        print(ratio_line(f"{num} objects", seconds[f"uniform, {num} objects"], [seconds["subsample_labels"]], limit))


def inference(cfg, batch, candidates):
    """A function that detects objects in the batch, with so many proposals an image above the score threshold."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    heads = model.roi_heads
    predictors = heads.box_predictor if isinstance(heads.box_predictor, torch.nn.ModuleList) else [heads.box_predictor]
    seen = []
    hook = predictors[-1].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    with torch.no_grad():
        model(batch)
        best = seen[0].softmax(dim=1)[:, :-1].amax(dim=1)
        threshold = best.sort(descending=True).values[min(candidates * len(batch), len(best) - 1)].item()
    hook.remove()
    for predictor in predictors:
        predictor.test_score_thresh = threshold

    def detect():
        with torch.no_grad():
            model(batch)

    return detect


def with_efo(cfg, efo, efo_all=False):
    """The config with these settings of the IoU branch."""
    cfg = cfg.clone()
    cfg.MODEL.BALANCED.IOU_BRANCH.EFO = efo
    cfg.MODEL.BALANCED.IOU_BRANCH.EFO_ALL = efo_all
    return cfg


def compare_detectors(args):
    cfg = config_of(args)
    batch = batch_of(cfg, args)
    plain = plain_detectron2(cfg)
    print(headline(args), "\n\ntraining step\n")
    steps = {"detectron2": training_step(plain, batch), "IoU branch": training_step(cfg, batch)}
    print(report(time_interleaved(steps, args.rounds, args.device, clock=args.clock)))
    del steps
    detectors = {
        "without EFO": inference(with_efo(cfg, False), batch, args.candidates),
        "EFO": inference(with_efo(cfg, True), batch, args.candidates),
        "EFO of all boxes": inference(with_efo(cfg, True, True), batch, args.candidates),
        "detectron2": inference(plain, batch, args.candidates),
    }
    seconds = time_interleaved(detectors, args.rounds, args.device, clock=args.clock)
    print(f"\ninference, {args.candidates} candidates an image\n\n{report(seconds)}\n")
    print(ratio_line("EFO / without", seconds["EFO"], [seconds["without EFO"]], 1.10))


def main():
    parts = {"generator": compare_generators, "detector": compare_detectors}
    parser = benchmark_parser(__doc__, "projects/IoUUniformRCNN/configs/iou_uniform_quick.yaml", parts=parts)
    parser.add_argument("--repeat", type=int, default=10, help="calls of a generator a timed round")
    parser.add_argument("--released", action="store_true", help="time the released rejection sampler, too: slow")
    parser.add_argument("--candidates", type=int, default=100, help="proposals an image above the score threshold")
    args = parse(parser)
    parts[args.part](args)


if __name__ == "__main__":
    main()
