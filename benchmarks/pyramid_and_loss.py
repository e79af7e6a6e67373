"""What the balanced pyramid and balanced L1 add to a training step, against plain detectron2 in the same run.

    python benchmarks/pyramid_and_loss.py --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --size 256 --rounds 10

The config is that of a two-stage detector or RetinaNet without them. Every variant has the same images and random
numbers; forward, backward and optimizer step are timed. The ratio to the first variant, less 1, is the part's share.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from interleave import benchmark_parser, headline, parse, report, time_interleaved
from train_step import batch_of, config_of, training_step

from d2_balanced.config import check_config, get_balanced_cfg, merge_overrides

LOSS_NODE = {"GeneralizedRCNN": "MODEL.BALANCED.BOX_LOSS", "BalancedRetinaNet": "MODEL.BALANCED.RETINANET.BOX_LOSS"}


def variants_of(cfg):
    """``{name: overrides}``; the first, plain detectron2, is the reference."""
    dense = cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN"
    kind = "retinanet_resnet" if dense else "resnet"
    level = ["MODEL.BALANCED.FPN.REFINE_LEVEL", "1" if dense else "2"]
    pyramid = ["MODEL.BACKBONE.NAME", f"build_{kind}_balanced_fpn_backbone", *level]
    loss = [f"{LOSS_NODE[cfg.MODEL.META_ARCHITECTURE]}.NAME", "BalancedL1"]
    unrefined = pyramid + ["MODEL.BALANCED.FPN.REFINEMENT", "none"]
    pafpn = ["MODEL.BACKBONE.NAME", f"build_{kind}_pafpn_backbone"]
    return {
        "plain detectron2": None,
        "d2_balanced, nothing changed": [],
        "balanced pyramid": pyramid,
        "balanced pyramid, not refined": unrefined,
        "PAFPN": pafpn,
        "balanced L1": loss,
        "balanced pyramid and L1": pyramid + loss,
    }


def plain_detectron2(cfg):
    """The same detector by detectron2's own classes."""
    cfg = cfg.clone()
    cfg.MODEL.BALANCED = get_balanced_cfg().MODEL.BALANCED
    if cfg.MODEL.META_ARCHITECTURE == "BalancedRetinaNet":
        cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    else:
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    return cfg


def set_up(cfg, overrides, args):
    if overrides is None:
        cfg = plain_detectron2(cfg)
    else:
        cfg = cfg.clone()
        merge_overrides(cfg, overrides)
    check_config(cfg)
    return training_step(cfg, batch_of(cfg, args))


def main():
    parser = benchmark_parser(__doc__, "configs/coco/faster_rcnn_R_50_FPN_1x.yaml", rounds=10, images=2)
    parser.add_argument("--only", nargs="+", help="names of the variants to time, beside the reference")
    args = parse(parser)
    cfg = config_of(args)
    chosen = variants_of(cfg)
    reference = next(iter(chosen))
    unknown = sorted(set(args.only or ()) - set(chosen))
    if unknown:
        parser.error(f"--only: there is no variant {unknown}, only {list(chosen)}")
    steps = {n: set_up(cfg, o, args) for n, o in chosen.items() if not args.only or n in (reference, *args.only)}
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    print(f"{headline(args)}\n\n{report(seconds)}")


if __name__ == "__main__":
    main()
