"""Find objects in images with a trained detector, and write them down.

    d2_balanced predict --run output/mine --input photos --output found
"""

from __future__ import annotations

import argparse
import math
from typing import Any, Dict, List

from tqdm import tqdm

from ..utils.command import called, command
from ..utils.errors import DataError
from .images import find_images
from .output import PredictionFolder, drawable_names
from .predictor import Predictor

__all__ = ["argument_parser", "main"]

_TOLD = 20  # unreadable files that are named


def argument_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog=called("python -m d2_balanced.inference"), description="Find objects in images with a trained detector."
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="output folder of the training run")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="default: its model_best.pth, else its newest checkpoint"
    )
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH",
        help="image files, folders of images, or patterns in quotes ('photos/**/*.jpg')",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what is found; it is made")
    parser.add_argument("--score", type=_score, default=0.5, help="leave out objects below it (default: 0.5)")
    parser.add_argument("--max", type=_positive, default=100, help="at most so many an image, the best (default: 100)")
    parser.add_argument("--batch", type=_positive, default=1, help="images that the model gets at once (default: 1)")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw what is found")
    parser.add_argument("--overwrite", action="store_true", help="replace the predictions that the output folder holds")
    return parser


def _score(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise argparse.ArgumentTypeError(f"has to be from 0 to 1, not {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"has to be 1 or more, not {text}")
    return value


@command("python -m d2_balanced.inference")
def main(argv=None) -> None:
    """The command at the top of this module; status 2 if images could not be read, the results of the others kept."""
    args = argument_parser().parse_args(argv)
    paths = find_images(args.input)
    folder = PredictionFolder(args.output, paths, args.overwrite)
    predictor = Predictor.from_run(args.run, args.weights)
    print(f"{len(paths)} image(s), weights {predictor.weights}", flush=True)
    folder.clear()
    faults = _predict(args, predictor, folder, paths)
    if faults:
        more = f"\n  and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        listed = "".join(f"\n  {fault}" for fault in faults[:_TOLD])
        raise DataError(
            f"{len(faults)} of {len(paths)} image(s) could not be read; what was found in the others is in "
            f"{args.output}.{listed}{more}"
        )


def _predict(args, predictor: Predictor, folder: PredictionFolder, paths: List[str]) -> List[str]:
    """Go through all images; returns what was wrong with those that cannot be read."""
    names = drawable_names(predictor.class_names) if args.pictures else []
    faults: List[str] = []
    objects = done = 0
    try:
        with tqdm(total=len(paths), unit="image", disable=None) as bar:
            for start in range(0, len(paths), args.batch):
                batch = paths[start : start + args.batch]
                for path, found in _find(predictor, batch, args, faults).items():
                    folder.add(path, found)
                    objects, done = objects + len(found), done + 1
                    if args.pictures:
                        folder.draw(path, found, names)
                bar.update(len(batch))
    finally:  # also when it is interrupted: what was found is kept, and how much that is gets told
        folder.write()
        places = [folder.json, folder.csv] + [folder.pictures] * args.pictures
        print(f"{objects} object(s) in {done} of {len(paths)} image(s): {', '.join(places)}")
    return faults


def _find(predictor: Predictor, paths: List[str], args, faults: List[str]) -> Dict[str, List[Dict[str, Any]]]:
    """The objects in each image of a batch that can be read, best first; adds to ``faults`` why others cannot be."""
    inputs = {}
    for path in paths:
        try:
            inputs[path] = predictor.read(path)
        except DataError as error:
            faults.append(str(error))
    found = {}
    for path, instances in zip(inputs, predictor.detect(list(inputs.values()))):
        best = instances[instances.scores >= args.score]
        best = best[best.scores.argsort(descending=True, stable=True)[: args.max]]
        found[path] = predictor.to_dicts(best)
    return found
