"""Find objects in images with a trained detector, and write them down.

    d2_balanced predict --run output/mine --input photos --output found
"""

from __future__ import annotations

from ..arguments.predict import argument_parser
from ..engine.stopping import end_at_once
from ..utils.command import command
from ..utils.errors import DataError
from .find_in_files import FindInFiles, Wanted
from .images import find_images
from .output import PredictionFolder
from .predictor import Predictor
from .tiles import Tiles
from .video import is_video, require_pyav

__all__ = ["main"]

_MOST = 100  # objects an image
_TOLD = 20  # unreadable files that are named


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
        with end_at_once("what was found so far is written"), folder.writing():
            find.in_images([path for path in paths if not is_video(path)])
            for path in videos:
                find.in_video(path)
    finally:  # also when it is interrupted: what was found is kept, and how much that is gets told
        _tell(find, folder, len(paths) - len(videos), len(videos), args.pictures)
        if find.best_score is not None and find.best_score < args.score:
            print(f"All have a score below --score {args.score:g}: the best has {find.best_score:.3f}.")
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
