"""What a run's detector gets wrong, on one page, from the detections that its evaluation has written.

    d2_balanced errors output/mine
    d2_balanced errors output/baseline output/mine      # image by image

torch is imported after the arguments have been read.
"""

from __future__ import annotations

import argparse
import math
import os
from typing import List, Optional, Sequence, Tuple

from ..utils.command import called, command
from ..utils.errors import DataError

__all__ = ["argument_parser", "main"]

NAME = "d2_balanced errors"


def argument_parser() -> argparse.ArgumentParser:
    """One run or two, and where their data are."""
    parser = argparse.ArgumentParser(prog=called(NAME), description="What a run's detector gets wrong, on one page.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a run; of two: compared image by image")
    parser.add_argument("--dataset", default="", help="default: all that the run evaluates on; of two runs the first")
    parser.add_argument("--score", type=_score, help="the least score that counts (default: the one with the best mean F1)")
    parser.add_argument("--pictures", type=int, metavar="N", help="images to draw (default: 12; of two runs 8 of each kind)")
    parser.add_argument("--output", default="", metavar="DIR", help="default: errors/ beside the detections")
    parser.add_argument("--val-json", default="", metavar="FILE", help="annotations, if the run's own have moved")
    parser.add_argument("--val-images", default="", metavar="DIR", help="folder of the images, if it has moved")
    return parser


def _score(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise argparse.ArgumentTypeError(f"has to be from 0 to 1, not {text}")
    return value


@command(NAME)
def main(argv: Optional[Sequence[str]] = None) -> List[str]:
    """The commands at the top of this module; prints and returns the paths of the pages."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if len(args.runs) > 2:
        parser.error("give one run, or two")
    if args.pictures is not None and args.pictures < 0:
        parser.error("--pictures has to be 0 or more")
    paths = _compare(args) if len(args.runs) == 2 else _of_one(args)
    print("\n".join(paths))
    return paths


def _of_one(args: argparse.Namespace) -> List[str]:
    from ..evaluation.errors.write import FOLDER, PICTURES, write_mistakes

    found = _opened(args.runs[0], args)
    if args.output and len(found) > 1:
        raise DataError(f"--output: the run has {len(found)} data sets ({', '.join(n for n, *_ in found)}); add --dataset.")
    number = PICTURES if args.pictures is None else args.pictures
    return [
        write_mistakes(args.output or os.path.join(folder, FOLDER), mistakes, detections, title, number)
        for _, folder, title, mistakes, detections in found
    ]


def _compare(args: argparse.Namespace) -> List[str]:
    from ..evaluation.errors.compare import PICTURES, write_comparison

    (_, _, title, first, _), *_ = _opened(args.runs[0], args)
    (_, folder, other_title, second, _), *_ = _opened(args.runs[1], args)
    output = args.output or os.path.join(folder, f"compared_with_{os.path.basename(os.path.abspath(args.runs[0]))}")
    number = PICTURES if args.pictures is None else args.pictures
    return [write_comparison(output, first, second, (title, other_title), number)]


def _opened(run: str, args: argparse.Namespace) -> List[Tuple]:
    """``(data set, folder of its evaluation, title, Mistakes, detections)`` of what the run has evaluated."""
    from ..engine.experiment import OwnData
    from ..engine.open import open_run

    names = _datasets(open_run(run, own_data=OwnData(val_json=args.val_json, val_images=args.val_images)))
    if args.dataset and args.dataset not in names:
        raise DataError(f"--dataset {args.dataset}: {run} evaluates on {', '.join(names) or 'nothing'}.")
    if not names:
        raise DataError(f"{run} evaluates on nothing; name the data: --val-json FILE --val-images DIR.")
    return [_mistakes_of(run, name, args.score) for name in ([args.dataset] if args.dataset else names)]


def _datasets(experiment) -> List[str]:
    """The names of the evaluated data sets; own data are registered, those of training not: they may be gone."""
    from ..data.coco_paths import register_train_val

    own = experiment.own_data
    if own.val_json or own.val_images:
        return [register_train_val(val_json=own.val_json, val_images=own.val_images)[1].name]
    return [] if own.train_json else list(experiment.test_datasets)


def _mistakes_of(run: str, name: str, score: Optional[float]) -> Tuple:
    from ..evaluation.coco import INFERENCE
    from ..evaluation.coco_metrics import evaluate_coco
    from ..evaluation.detections import internal_detections, load_results
    from ..evaluation.errors.write import find_mistakes
    from ..evaluation.ground_truth import GroundTruth
    from ..evaluation.summary import RESULTS_NAME
    from ..evaluation.write_results import read_report

    folder = os.path.join(run, INFERENCE, name)
    results = os.path.join(folder, RESULTS_NAME)
    if not os.path.isfile(results):
        raise DataError(f"{results} is not there. Evaluate first: d2_balanced eval --resume --output-dir {run}")
    truth = GroundTruth.from_catalog(name)
    if not truth.has_annotations:
        raise DataError(f"Data set {name!r} has no annotations: nothing can be called a mistake.")
    translated = internal_detections(truth, load_results(results))
    unknown = sum(translated.unknown_images.values()) + sum(translated.unknown_categories.values())
    if unknown:
        raise DataError(f"{results}: {unknown} detections have ids that {name!r} has not. Were the data changed since?")
    limit = read_report(os.path.join(folder, "metrics.json")).get("max_dets", 100)
    metrics = evaluate_coco(truth, translated.detections, max_dets=limit)
    title = f"{os.path.basename(os.path.abspath(run))} on {name}"
    return name, folder, title, find_mistakes(truth, translated.detections, metrics, score), translated.detections
