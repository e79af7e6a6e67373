"""Options that commands about a trained checkpoint have in common."""

import argparse

from .numbers import count

__all__ = ["add_last_overrides", "add_overrides", "add_run", "add_training_images", "evaluated_checkpoints"]


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run whose detector is used, and which of its checkpoints."""
    parser.add_argument("--run", required=True, metavar="DIR", help="output folder of the training run")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="default: its model_best.pth, else its newest checkpoint"
    )


def add_last_overrides(parser: argparse.ArgumentParser) -> None:
    """The config's overrides as ``opts``, all words from the first one on."""
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="...",
        help="overrides of the config, last: KEY VALUE of a yaml run, key=value of a lazy one",
    )  # fmt: skip


def add_training_images(parser: argparse.ArgumentParser, config_required: bool = True) -> None:
    """Options of a command that measures a checkpoint on training images: config, weights, the images, how many."""
    parser.add_argument("--config-file", required=config_required, default="", help="config of a model (.yaml or .py)")
    parser.add_argument("--weights", default="", help="its checkpoint; default: the one that the config names")
    parser.add_argument("--train-json", default="", help="COCO annotation file, in place of the config's training set")
    parser.add_argument("--train-images", default="", help="folder of its images")
    parser.add_argument("--images", type=count, default=100, help="how many images to measure on")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """The config's overrides, as the last words."""
    parser.add_argument("overrides", nargs="*", help="settings of the config, in the form that its kind has")


def evaluated_checkpoints(description: str) -> argparse.ArgumentParser:
    """A parser with the config, its checkpoints, the test data, the output folder and overrides."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config-file", required=True, help="config of the model (.yaml or .py)")
    parser.add_argument("--weights", required=True, nargs="+", help="its checkpoint, or several of the same config")
    parser.add_argument("--val-json", default="", help="COCO annotation file, in place of the config's test set")
    parser.add_argument("--val-images", default="", help="folder of its images")
    parser.add_argument("--output", required=True, help="folder for everything that is written")
    parser.add_argument("overrides", nargs="*", help="settings of the config, after any option but --weights")
    return parser
