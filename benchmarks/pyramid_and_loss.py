"""What the balanced pyramid and balanced L1 add to a training step, against plain detectron2 in the same run.

    python benchmarks/pyramid_and_loss.py --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --size 256 --rounds 10

The config is that of a two-stage detector or RetinaNet without them. Every variant has the same images and random numbers;
forward, backward and optimizer step are timed. The ratio to the first variant, less 1, is the part's share.
"""

import argparse
import time

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
import torch
from interleave import environment, report, time_interleaved
from train_step import images, training_step

from d2_balanced.config import check_config, get_balanced_cfg, load_yaml, merge_overrides

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
    return training_step(cfg, images(cfg, args.images, args.size, args.objects))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/coco/faster_rcnn_R_50_FPN_1x.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="side of the square images, in pixels")
    parser.add_argument("--objects", type=int, default=10, help="objects an image")
    parser.add_argument("--only", nargs="+", help="names of the variants to time, beside the reference")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="of this process: steadier where others run, CPU only")
    parser.add_argument("--opts", nargs="*", default=[], help="overrides of config keys: KEY VALUE ...")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # A learning rate of 0: random weights without warm-up would diverge, and a step costs the same.
    fixed = ["MODEL.DEVICE", args.device, "MODEL.WEIGHTS", "", "SOLVER.BASE_LR", "0.0"]
    cfg = load_yaml(args.config_file, [*fixed, *args.opts])
    chosen = variants_of(cfg)
    reference = next(iter(chosen))
    unknown = sorted(set(args.only or ()) - set(chosen))
    if unknown:
        parser.error(f"--only: there is no variant {unknown}, only {list(chosen)}")
    steps = {n: set_up(cfg, o, args) for n, o in chosen.items() if not args.only or n in (reference, *args.only)}
    clock = time.process_time if args.cpu_time else time.perf_counter
    seconds = time_interleaved(steps, args.rounds, args.device, clock=clock)
    print(f"{args.config_file}, {args.images} images of {args.size} px, {args.rounds} rounds; {environment(args.device)}\n")
    print(report(seconds))


if __name__ == "__main__":
    main()
