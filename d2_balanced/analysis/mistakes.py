"""What a run's detector gets wrong, on one page, from the detections that its evaluation has written.

    d2_balanced errors output/mine
    d2_balanced errors output/baseline output/mine      # image by image

torch is imported after the arguments have been read.
"""

from __future__ import annotations

import argparse
import os
from typing import List, Optional, Sequence, Tuple

from ..arguments.numbers import natural, score
from ..utils.command import called, command
from ..utils.errors import DataError
from ..utils.output_folder import require_writable

__all__ = ["argument_parser", "main"]

NAME = "d2_balanced errors"


def argument_parser() -> argparse.ArgumentParser:
    """One run or two, and where their data are."""
    parser = argparse.ArgumentParser(prog=called(NAME), description="What a run's detector gets wrong, on one page.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of an evaluation; two: compared image by image")
    parser.add_argument("--dataset", default="", help="default: all that the run was evaluated on; of two runs the first")
    parser.add_argument("--score", type=score, help="the least score that counts (default: the one with the best mean F1)")
    parser.add_argument("--pictures", type=natural, metavar="N", help="images to draw (default: 12; of two runs 8 of each kind)")
    parser.add_argument("--output", default="", metavar="DIR", help="default: errors/ beside the detections")
    parser.add_argument("--val-json", default="", metavar="FILE", help="annotations, if the run's own have moved")
    parser.add_argument("--val-images", default="", metavar="DIR", help="folder of the images, if it has moved")
    return parser


@command(NAME)
def main(argv: Optional[Sequence[str]] = None) -> List[str]:
    """The commands at the top of this module; prints and returns the paths of the pages."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if len(args.runs) > 2:
        parser.error("give one run, or two")
    paths = _compare(args) if len(args.runs) == 2 else _of_one(args)
    print("\n".join(paths))
    return paths


def _of_one(args: argparse.Namespace) -> List[str]:
    from ..evaluation.errors.write import FOLDER, PICTURES, write_mistakes

    found = _evaluations(args.runs[0], args.dataset)
    if args.output and len(found) > 1:
        raise DataError(f"--output: the run has {len(found)} data sets ({', '.join(each.name for each in found)}); add --dataset.")
    number = PICTURES if args.pictures is None else args.pictures
    folders = [args.output or os.path.join(each.folder, FOLDER) for each in found]
    for folder in folders:
        require_writable(folder)
    return [write_mistakes(folder, *_mistakes_of(each, args), _title(each), number) for folder, each in zip(folders, found)]


def _compare(args: argparse.Namespace) -> List[str]:
    from ..evaluation.errors.compare import PICTURES, write_comparison

    one, other = _pair(*(_evaluations(run, args.dataset) for run in args.runs))
    output = args.output or os.path.join(other.folder, f"compared_with_{one.label}")
    require_writable(output)
    number = PICTURES if args.pictures is None else args.pictures
    mistakes = [_mistakes_of(each, args)[0] for each in (one, other)]
    return [write_comparison(output, *mistakes, (_title(one), _title(other)), number)]


def _evaluations(run: str, dataset: str) -> List:
    """What the run has evaluated, on the named data set alone where one is named."""
    from .evaluations import evaluations_in

    found = evaluations_in(run)
    chosen = [each for each in found if dataset in ("", each.name)]
    if not chosen:
        raise DataError(f"--dataset {dataset}: {run} was evaluated on {', '.join(each.name for each in found)}.")
    return chosen


def _pair(first: List, second: List) -> Tuple:
    """The evaluations of the first data set that both have; the first of each where names are different."""
    pairs = ((one, other) for one in first for other in second if one.name == other.name)
    return next(pairs, (first[0], second[0]))


def _title(evaluation) -> str:
    return f"{evaluation.label} on {evaluation.name}"


def _mistakes_of(evaluation, args: argparse.Namespace) -> Tuple:
    """``(Mistakes, detections)``"""
    from ..engine.experiment import OwnData
    from ..evaluation.coco_metrics import evaluate_coco
    from ..evaluation.detections import known_detections
    from ..evaluation.errors.write import find_mistakes
    from .evaluations import ground_truth_of

    truth = ground_truth_of(evaluation, OwnData(val_json=args.val_json, val_images=args.val_images))
    detections = known_detections(truth, evaluation.results)
    metrics = evaluate_coco(truth, detections, max_dets=evaluation.max_dets)
    return find_mistakes(truth, detections, metrics, args.score), detections
