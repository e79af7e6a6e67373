"""The command line of ``train_net.py`` and ``d2_balanced train``: arguments, and errors that fit on one screen.

torch and detectron2 are imported after the arguments have been read, so that what is wrong with these is said at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Optional, Sequence

from .arguments.numbers import count, natural, positive
from .arguments.own_data import add_own_data
from .utils.command import FAULT, TRACEBACK, called, command, tell
from .utils.errors import ConfigError, doing

__all__ = ["argument_parser", "evaluate", "main"]

NAME = "train_net.py"
DIVERGED, REPORT_FAILED = FAULT, 3  # exit statuses, beside those of every command

logger = logging.getLogger(__name__)

_EPILOG = f"""
Examples:
  train_net.py --config-file quick/faster_rcnn_R_18_FPN --output-dir output/first
  train_net.py --config-file ... --add LibraRCNN/iou_balanced_sampling --add RGA_PRM/rga
  train_net.py --config-file ... --data my/folder [--val-fraction 0.2]
  train_net.py --config-file ... --train-json A.json --train-images DIR --val-json B.json --val-images DIR
  train_net.py --resume --output-dir output/first [SOLVER.MAX_ITER 500]
  train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/first/model_best.pth
  torchrun --nproc_per_node 8 train_net.py --config-file ...

A config is a file, or the name of one that comes along: `d2_balanced configs` lists them, and what can be added.

Overrides at the end: "SOLVER.BASE_LR 0.01" for .yaml configs, "optimizer.lr=0.01" for .py configs.

What you have to mend is said in one line, with exit status 2; with {TRACEBACK}=1 in the environment there is a
traceback, too. Any other error has one, and status 1.
"""


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's usual arguments, then those of own data and of the schedule."""
    parser = argparse.ArgumentParser(
        prog=called(NAME), description="Train or evaluate a detector.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file", default="", metavar="FILE",
        help=".yaml (yacs) or .py (LazyConfig), or the name of a config; with --resume the run's own",
    )
    parser.add_argument(
        "--add", action="append", default=[], metavar="FRAGMENT",
        help="file or name of a fragment to add to the config, before the overrides; may be repeated",
    )
    parser.add_argument("--output-dir", default="", metavar="DIR", help="where everything is written")
    parser.add_argument(
        "--resume", action="store_true",
        help="continue the run in the output folder, with its config and data; what is given beside it is a change",
    )
    parser.add_argument("--require-checkpoint", action="store_true", help="with --resume: do not start anew without one")
    parser.add_argument(
        "--accept-changed-data", action="store_true", help="with --resume: although the training data have changed"
    )
    parser.add_argument("--eval-only", action="store_true", help="no training; with --resume: of the last checkpoint")
    parser.add_argument(
        "--ensemble", action="append", default=[], metavar="RUN",
        help="with --eval-only: mix the detections with those of another run (a folder, or a checkpoint), by the "
        "config's suppression (MODEL.BALANCED.NMS); may be repeated",
    )
    parser.add_argument(
        "--imbalance-report", action="store_true",
        help="record what is trained on, and write <output folder>/imbalance/report.html at the end",
    )
    add_own_data(parser, "own data (the number of classes is taken from it)")
    schedule = parser.add_argument_group("schedule")
    schedule.add_argument("--epochs", type=positive, metavar="N", help="passes through the data, in place of iterations")
    schedule.add_argument(
        "--auto-scale-lr", action="store_true",
        help="scale learning rate and schedule from the config file's batch size to the one that is used (SGD only)",
    )
    several = parser.add_argument_group("several processes (or start with torchrun)")
    several.add_argument("--num-gpus", type=natural, default=1, help="GPUs of this machine")
    several.add_argument("--num-machines", type=count, default=1)
    several.add_argument("--machine-rank", type=natural, default=0)
    several.add_argument("--dist-url", default="auto", help="tcp://<machine 0>:<port> for several machines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides, see below")
    return parser


@command(NAME)
def main(argv: Optional[Sequence[str]] = None) -> None:
    """``train_net.py``. Exit statuses are those of :mod:`.utils.command`; 1 if a loss diverged, 3 without the report."""
    args = argument_parser().parse_args(argv)
    from torch.multiprocessing import ProcessExitedException

    from .engine.distributed import launch

    try:
        launch(_one_process, (args,), args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    except ProcessExitedException as error:  # a spawned process, which has said why
        sys.exit(error.exit_code)


def evaluate(argv: Optional[Sequence[str]] = None) -> None:
    """``d2_balanced eval``: :func:`main` with ``--eval-only``."""
    main(["--eval-only", *(sys.argv[1:] if argv is None else argv)])


@command(NAME)
def _one_process(args: argparse.Namespace) -> None:
    from .engine import run
    from .engine.lock import hold_folder

    with doing(f"while reading {args.config_file or args.output_dir}"):
        experiment = run.load_experiment(args)
    if args.ensemble and not args.eval_only:
        raise ConfigError("--ensemble is for an evaluation: add --eval-only.")
    if args.imbalance_report:
        _record(experiment, args.eval_only)
    with hold_folder(experiment.settings.output_dir):
        _run(experiment, args)


def _run(experiment, args: argparse.Namespace) -> None:
    from .engine import run
    from .engine.nonfinite import NonFiniteLossError

    if args.eval_only:
        run.evaluate(experiment, args.resume, args.ensemble)
        return
    trainer = run.prepare(
        experiment, resume=args.resume, auto_scale_lr=args.auto_scale_lr, epochs=args.epochs,
        accept_changed_data=args.accept_changed_data, require_checkpoint=args.require_checkpoint,
    )
    try:
        status = run.train(trainer, experiment)
    except NonFiniteLossError as error:  # in full in the log
        tell(NAME, f"{str(error).splitlines()[0]} See above, and nonfinite_loss.json.")
        sys.exit(DIVERGED)
    if status:
        sys.exit(status)
    if args.imbalance_report:
        _report(experiment, trainer)


def _record(experiment, eval_only: bool) -> None:
    if eval_only:
        raise ConfigError(
            "--imbalance-report records training. For a checkpoint: "
            "python -m d2_balanced.analysis.report --config-file CONFIG --weights FILE --output DIR"
        )
    experiment.record_in_training()


def _report(experiment, trainer) -> None:
    """Write the report, in the first process. The run is complete and saved: a failure says how to repeat only this."""
    from detectron2.utils import comm

    from .analysis.report import report_of_training
    from .engine.stopping import end_at_once

    if not comm.is_main_process():
        return
    model = getattr(trainer.model, "module", trainer.model)
    again = f"python -m d2_balanced.analysis.report {experiment.settings.output_dir}"
    try:
        with end_at_once(f"the run is complete, its report is not. Make it with {again}"):
            logger.info("Imbalance report: %s", report_of_training(experiment, model))
    except Exception:
        logger.exception("The run is complete, its report is not. Repeat it with %s", again)
        sys.exit(REPORT_FAILED)
