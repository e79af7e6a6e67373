"""Find objects in images with a trained detector, and write them down.

    d2_balanced predict --run output/mine --input photos --output found
"""

from __future__ import annotations

import argparse
import math

from ..utils.command import called, command
from ..utils.errors import DataError
from .find_in_files import FindInFiles, Wanted
from .images import find_images
from .output import PredictionFolder
from .predictor import Predictor
from .tiles import Tiles
from .video import is_video, require_pyav

__all__ = ["argument_parser", "main"]

_MOST = 100  # objects an image
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
        help="image or video files, folders of images, or patterns in quotes ('photos/**/*.jpg')",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what is found; it is made")
    parser.add_argument("--score", type=_score, default=0.5, help="leave out objects below it (default: 0.5)")
    parser.add_argument(
        "--max", type=_positive, help="at most so many an image, the best (default: 100; with --tile as many as there are)"
    )
    parser.add_argument("--batch", type=_positive, default=1, help="images or tiles that the model gets at once (default: 1)")
    parser.add_argument("--workers", type=_natural, default=0, metavar="N", help="processes that read ahead (default: 0)")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw what is found")
    parser.add_argument("--tile", type=_positive, metavar="SIZE", help="look at larger images also in tiles of SIZE pixels")
    parser.add_argument(
        "--overlap", type=_overlap, default=0.2, metavar="F", help="part of a tile that its neighbour covers (default: 0.2)"
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as the config describes it")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: the config's)")
    parser.add_argument("--overwrite", action="store_true", help="replace the predictions that the output folder holds")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="overrides of the config, last: KEY VALUE of a yaml run, key=value of a lazy one"
    )
    return parser


def _score(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise argparse.ArgumentTypeError(f"has to be from 0 to 1, not {text}")
    return value


def _overlap(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"has to be from 0 and below 1, not {text}")
    return value


def _positive(text: str) -> int:
    return _at_least(1, text)


def _natural(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"has to be {least} or more, not {text}")
    return value


@command("python -m d2_balanced.inference")
def main(argv=None) -> None:
    """The command at the top of this module; status 2 if files could not be read, the results of the others kept."""
    args = argument_parser().parse_args(argv)
    paths = find_images(args.input)
    videos = [path for path in paths if is_video(path)]
    if videos:
        require_pyav()
    folder = PredictionFolder(args.output, paths, args.overwrite)
    tiles = Tiles(args.tile, args.overlap) if args.tile else None
    predictor = Predictor.from_run(
        args.run, args.weights, device=args.device, overrides=args.opts, tta=args.tta, tiles=tiles
    )
    counted = [f"{len(paths) - len(videos)} image(s)"] + [f"{len(videos)} video(s)"] * bool(videos)
    print(f"{', '.join(counted)}, weights {predictor.weights}", flush=True)
    most = args.max or (None if args.tile else _MOST)
    find = FindInFiles(predictor, folder, Wanted(args.score, most, args.batch, args.workers, args.pictures))
    try:
        with folder.writing():
            find.in_images([path for path in paths if not is_video(path)])
            for path in videos:
                find.in_video(path)
    finally:  # also when it is interrupted: what was found is kept, and how much that is gets told
        _tell(find, folder, len(paths) - len(videos), len(videos), args.pictures)
    if find.faults:
        more = f"\n  and {len(find.faults) - _TOLD} more" if len(find.faults) > _TOLD else ""
        listed = "".join(f"\n  {fault}" for fault in find.faults[:_TOLD])
        raise DataError(
            f"{len(find.faults)} of {len(paths)} file(s) could not be read; what was found in the others is in "
            f"{args.output}.{listed}{more}"
        )


def _tell(find: FindInFiles, folder: PredictionFolder, images: int, videos: int, pictures: bool) -> None:
    done = [f"{find.images} of {images} image(s)"] * (images > 0) + [f"{find.frames} frame(s)"] * (videos > 0)
    drawn_in = [folder.pictures] * (images > 0) + [folder.videos] * (videos > 0) if pictures else []
    print(f"{find.objects} object(s) in {' and '.join(done)}: {', '.join([folder.json, folder.csv, *drawn_in])}")
