"""Tune the learning rate and named keys, with the same budget in every arm.

    d2_balanced tune --config-file CONFIG --output-dir output/tuned --train-json ... --trials 6 \
        --arm baseline --arm "rga=--add RGA_PRM/rga" --lr 0.01,0.02,0.03,0.04,0.06,0.08

torch and Optuna are imported after the arguments have been read.
"""

from __future__ import annotations

import argparse
import os
from typing import Optional, Sequence

from ..arguments.numbers import count, natural, positive, seed
from ..arguments.own_data import add_own_data
from ..utils.command import called, command
from ..utils.errors import ConfigError
from ..utils.json_file import read_json
from . import BEGUN, MAY_CHANGE, SEED, TRIALS
from .spaces import parse_rates, parse_search

__all__ = ["argument_parser", "main"]

NAME = "d2_balanced tune"
_EPILOG = """
Examples:
  d2_balanced tune --config-file quick/faster_rcnn_R_18_FPN --output-dir output/tuned --trials 6
  ... --lr 0.01,0.02,0.04           these learning rates; or a range: --lr 0.005..0.1
  ... --search SOLVER.WEIGHT_DECAY=log:1e-5..1e-3 --search rga:SOLVER.GRADIENT_ANNEALING.INITIAL=3.0,5.0,7.0
  ... --arm baseline --arm "rga=--add RGA_PRM/rga" --arm "cascade=--config-file quick/cascade_rcnn_R_18_FPN"
  d2_balanced tune --output-dir output/tuned          go on where it was stopped; --trials 12 for more

Guide: docs/TUNING.md. Overrides at the end are for all arms.
"""


def argument_parser() -> argparse.ArgumentParser:
    """What is tuned, in which arms, at which budget, and what all trials share."""
    parser = argparse.ArgumentParser(
        prog=called(NAME), description="Tune the learning rate and named keys, with the same budget in every arm.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--config-file", default="", metavar="FILE", help="as for train; an arm may have its own")
    parser.add_argument("--add", action="append", default=[], metavar="FRAGMENT", help="as for train, for all arms")
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="trials, results, what is needed to go on")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME[=WORDS]",
                        help="an arm, with its --config-file, --add and overrides; may be repeated (default: one arm)")
    parser.add_argument("--lr", metavar="SPACE", help="learning rates, a,b,c or LOW..HIGH, or none to leave it "
                        "(default: from a quarter of the config's to four times it)")
    parser.add_argument("--search", action="append", default=[], metavar="[ARM:]KEY=SPACE",
                        help="another key: a,b,c or LOW..HIGH or log:LOW..HIGH; may be repeated")
    parser.add_argument("--trials", type=count, metavar="N",
                        help=f"of every arm (default: all combinations of listed values, {TRIALS} if there is a range)")
    parser.add_argument("--seed", type=seed, default=SEED, metavar="N",
                        help=f"of all trials; none of the seeds that are compared later (default: {SEED})")
    parser.add_argument("--metric", metavar="NAME",
                        help="what decides, higher is better (default: the config's best metric)")
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="trials at a time, one thread each")
    parser.add_argument("--num-gpus", type=natural, default=1, metavar="N", help="GPUs of every trial")
    parser.add_argument("--final-only", action="store_true", help="of finished trials keep model_final.pth only")
    add_own_data(parser, "own data, as for train")
    parser.add_argument("--epochs", type=positive, metavar="N", help="passes through the data, in place of iterations")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, for all arms")
    return parser


@command(NAME)
def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command at the top of this module. 0: all trials are done; 1: some failed; 130 after Ctrl-C."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if not args.config_file and not args.arm:
        args = _as_begun(args, parser)
    for text in args.search:
        parse_search(text)
    if args.lr not in (None, "none"):
        parse_rates(args.lr)
    from .tune import tune

    return tune(args)


def _as_begun(args: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments with which the tuning in the output folder was begun, and those given now that may change."""
    path = os.path.join(args.output_dir, BEGUN)
    if not os.path.isfile(path):
        raise ConfigError(f"--config-file is missing. Only a tuning that was begun does without; {path} is not there.")
    given = {name: value for name, value in vars(args).items() if value not in (parser.get_default(name), [])}
    fixed = sorted(set(given) - set(MAY_CHANGE) - {"output_dir"})
    if fixed:
        raise ConfigError(f"{fixed[0]}: a tuning goes on as it was begun; only {', '.join(MAY_CHANGE)} may be given.")
    return argparse.Namespace(**{**vars(args), **read_json(path)["arguments"], **given})
