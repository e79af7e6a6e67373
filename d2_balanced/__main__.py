"""``d2_balanced COMMAND ...``, also ``python -m d2_balanced COMMAND ...``: all commands of this package.

A command is imported when it is run, and its options are read before that: those of ``d2_balanced iou-scores`` are in
``arguments/iou_scores.py``, as are those of all commands that import torch. So help and misuse are told at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Dict, NamedTuple, Optional, Sequence

from .compat import prepare
from .utils.command import MISUSE, calling, command
from .utils.errors import InstallError, did_you_mean

__all__ = ["COMMANDS", "main"]

NAME = "d2_balanced"


class Command(NamedTuple):
    """``target``: "module:function" in this package; the function takes the words that come after the command."""

    target: str
    about: str


COMMANDS: Dict[str, Command] = {
    "train": Command("train:main", "train a detector"),
    "eval": Command("train:evaluate", "evaluate a checkpoint: train's options, nothing is trained"),
    "predict": Command("inference.command:main", "find objects in images and videos with a trained detector"),
    "export": Command("inference.export.command:main", "write a trained detector as ONNX or TorchScript, and try the file"),
    "benchmark": Command("inference.benchmark.command:main", "what a trained detector costs, beside plain detectron2"),
    "configs": Command("zoo:main", "list the configs and fragments, show one in full"),
    "check": Command("data.check:main", "check a data set before training on it"),
    "convert": Command("data.convert:main", "a folder in YOLO's or Pascal VOC's layout as COCO JSON, with a validation set"),
    "report": Command("analysis.report.__main__:main", "what is out of balance in a run, on one page"),
    "compare": Command("evaluation.compare:main", "the metrics of two evaluations, and their differences"),
    "summary": Command("evaluation.summary:main", "mean and spread of the arms of an experiment"),
    "errors": Command("analysis.mistakes:main", "what a run's detector gets wrong, on one page; two runs image by image"),
    "by-objects": Command("evaluation.by_objects:main", "AP on images grouped by their number of objects"),
    "pictures": Command("analysis.pictures:main", "pictures of detections beside the ground truth"),
    "plot": Command("analysis.plot:main", "figures of what runs recorded"),
    "samples": Command("analysis.training_samples:main", "what a checkpoint's box heads would train on"),
    "sampling": Command("analysis.sampling_distribution:main", "what samplers draw: the IoUs of the negatives"),
    "iou-scores": Command("analysis.iou_scores:main", "ranking by class score and by predicted IoU"),
    "branch-scores": Command("analysis.branch_scores:main", "what parallel heads think of the same test proposals"),
    "loss-curves": Command("analysis.loss_curves:main", "box losses and their gradients as curves"),
    "ap-by-stage": Command("analysis.ap_by_stage:main", "AP of a multi-stage detector after each stage"),
    "parameters": Command("analysis.parameters:main", "the parameters of configs' models, by part"),
    "tune": Command("tuning.command:main", "tune the learning rate and named keys, with the same budget in every arm"),
    "tables": Command("tables.cli:main", "run the papers' tables"),
    "generated": Command("data.generated:main", "draw the generated data set"),
    "crowdhuman": Command("data.crowdhuman:main", "convert CrowdHuman's annotations to COCO JSON"),
    "proposals": Command("data.proposal_files:main", "does a proposal file fit a data set?"),
    "doctor": Command("doctor:main", "what is installed, what is wrong with it, and the fix"),
}
_WITHOUT_DETECTRON2 = ("doctor",)


@command(NAME)
def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns its exit status, or raises ``SystemExit`` with it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else MISUSE
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        meant = did_you_mean(name, COMMANDS) or f" There are {', '.join(COMMANDS)}."
        print(f"{NAME}: error: there is no command {name!r}.{meant}", file=sys.stderr)
        return MISUSE
    with calling(f"{NAME} {name}"), command(NAME):
        return _run(name, rest)


def _run(name: str, words: Sequence[str]) -> int:
    _read_arguments(name, words)
    if name not in _WITHOUT_DETECTRON2:
        _prepare()
    module, function = COMMANDS[name].target.split(":")
    status = getattr(importlib.import_module(f".{module}", __package__), function)(words)
    return status if isinstance(status, int) else 0  # many return what they wrote or counted


def _read_arguments(name: str, words: Sequence[str]) -> None:
    """End with the help, or with what is wrong with an option; the command itself reads the words again."""
    module = f"{__package__}.arguments.{name.replace('-', '_')}"
    if importlib.util.find_spec(module):
        importlib.import_module(module).argument_parser().parse_args(words)


def _prepare() -> None:
    try:
        prepare()
    except ImportError as error:
        raise InstallError(str(error)) from error


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {each.about}" for name, each in COMMANDS.items()]
    return "\n".join([f"usage: {NAME} COMMAND ...", "", *lines, "", f"{NAME} COMMAND --help says more about one."])


if __name__ == "__main__":
    sys.exit(main())
