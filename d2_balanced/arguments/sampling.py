"""``d2_balanced sampling``"""

import argparse

from .checkpoint import add_overrides
from .numbers import count, seed

__all__ = ["argument_parser"]


def argument_parser() -> argparse.ArgumentParser:
    """Of which detector, or none, with how many images and bins."""
    parser = argparse.ArgumentParser(
        description="A plot of the negatives that a sampler draws: their share of the minibatch by IoU, beside random "
        "sampling. With a config, of the proposals that its detector would train on, labeled by its own matcher and "
        "drawn with its quotas; without, of random boxes around random objects (nothing is read)."
    )
    parser.add_argument("--config-file", help="config of a detector with RPN and ROI heads (.yaml or .py)")
    parser.add_argument("--weights", help="its checkpoint; default: the one that the config names")
    parser.add_argument("--train-json", default="", help="COCO annotation file, in place of the config's training set")
    parser.add_argument("--train-images", default="", help="folder of its images")
    parser.add_argument("--num", type=count, default=40, help="number of images")
    parser.add_argument("--num-bins", type=count, default=3, help="bins of the IoU-balanced sampler")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--output", default="sampling_distribution.png", help="where the plot goes")
    add_overrides(parser)
    return parser
