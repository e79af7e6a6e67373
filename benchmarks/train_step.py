"""Training step at neutral settings, with layers as ``MODEL.LAYERS`` can have them, against plain detectron2, interleaved.

    python benchmarks/train_step.py --config-file configs/quick/faster_rcnn_R_18_FPN.yaml --rounds 30

All models have the same weights, images and random numbers; forward, backward and optimizer step are timed.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from detectron2.layers import CNNBlockBase
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from interleave import benchmark_parser, headline, memory_of_steps, parse, report, time_interleaved

from d2_balanced.config import get_balanced_cfg
from d2_balanced.engine.open import open_experiment
from d2_balanced.modeling.fast_layers import set_layers

PLAIN = {
    "SingleStage": "StandardROIHeads",
    "CascadeStages": "CascadeROIHeads",
    "RecursiveStages": "CascadeROIHeads",
}


# What the layers of each variant are set to.
CHANNELS_LAST = {"CHANNELS_LAST": True}
FOLDED = {**CHANNELS_LAST, "FOLD_FROZEN_NORM": True}
LAYERS = {
    "detectron2": {},
    "d2_balanced": {},
    "channels last": CHANNELS_LAST,
    "channels last, folded": FOLDED,
    "bfloat16": {"PRECISION": "bfloat16"},
    "bfloat16, channels last": {**CHANNELS_LAST, "PRECISION": "bfloat16"},
    "bfloat16, channels last, folded": {**FOLDED, "PRECISION": "bfloat16"},
    "channels last, compiled": CHANNELS_LAST,
    "bfloat16, channels last, compiled": {**CHANNELS_LAST, "PRECISION": "bfloat16"},
}
COMPILED = "compiled"  # the backbone, by torch.compile


def plain_detectron2(cfg):
    """The same config with detectron2's own RPN and ROI heads; those of a cascade with a head each in place of a loop."""
    cfg = cfg.clone()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = PLAIN[cfg.MODEL.BALANCED.STAGES.NAME]
    cfg.MODEL.BALANCED, cfg.MODEL.LAYERS = get_balanced_cfg().MODEL.BALANCED, get_balanced_cfg().MODEL.LAYERS
    return cfg


def images(cfg, num, size, objects, seed=0):
    """Random images with random objects, as the model's input."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for _ in range(num):
        corner = torch.rand(objects, 2, generator=generator) * size * 0.7
        extent = size * (0.05 + 0.25 * torch.rand(objects, 2, generator=generator))
        instances = Instances((size, size), gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1)))
        instances.gt_classes = torch.randint(cfg.MODEL.ROI_HEADS.NUM_CLASSES, (objects,), generator=generator)
        image = torch.randint(256, (3, size, size), generator=generator).float()
        batch.append({"image": image, "instances": instances, "height": size, "width": size})
    return batch


def random_model(cfg):
    """The config's model with random weights, with which a step stays finite: a ResNet with frozen normalisation and
    random weights doubles its activations in every block, so the last normalisation of each residual branch starts at 0."""
    torch.manual_seed(0)
    model = build_model(cfg)
    for block in model.modules():
        if isinstance(block, CNNBlockBase) and hasattr(block, "conv2"):
            torch.nn.init.zeros_(getattr(block, "conv3", block.conv2).norm.weight)
    set_layers(model, **{key.lower(): value for key, value in cfg.MODEL.LAYERS.items()})
    return model


def training_step(cfg, batch, make_hook=None, compiled=False):
    """A function that takes an optimizer step of this config's model, with ``make_hook(model)()`` after the backward; its
    backbone ``compiled`` or not."""
    model = random_model(cfg).train()
    if compiled:
        model.backbone.compile()
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        # So that all steps are alike. With 1e-4 this random model is soon so sure of the background that gradients fall
        # below the smallest normal number, and float32 on a CPU then takes ten times as long.
        group["lr"] = 1e-8
    hook = make_hook(model) if make_hook else None

    def step():
        torch.manual_seed(1)
        with EventStorage():
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        if hook is not None:
            hook()
        optimizer.step()

    return step


def inference(model, batch):
    """A function that detects objects in the batch."""
    model.eval()

    def detect():
        with torch.no_grad():
            model(batch)

    return detect


def config_of(args):
    """The config of a benchmark's arguments, on its device and without weights."""
    cfg = open_experiment(args.config_file, args.opts).cfg
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = args.device, ""
    return cfg


def batch_of(cfg, args):
    """The images of a benchmark's arguments."""
    return images(cfg, args.images, args.size, args.objects)


def step_of(args, name):
    """A function that takes one training step of the variant."""
    cfg = config_of(args)
    cfg = plain_detectron2(cfg) if name == "detectron2" else cfg
    cfg.MODEL.LAYERS.update(LAYERS[name])
    return training_step(cfg, batch_of(cfg, args), compiled=COMPILED in name)


def main():
    parser = benchmark_parser(__doc__, "configs/quick/faster_rcnn_R_18_FPN.yaml")
    parser.add_argument("--variants", nargs="+", choices=LAYERS, default=list(LAYERS)[:2], help="the first is the reference")
    args = parse(parser)
    variants = {name: step_of(args, name) for name in args.variants}
    seconds = time_interleaved(variants, args.rounds, args.device, clock=args.clock)
    print(f"{headline(args)}\n\n{report(seconds, memory_of_steps(step_of, args, variants))}")


if __name__ == "__main__":
    main()
