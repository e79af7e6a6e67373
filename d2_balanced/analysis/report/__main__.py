"""Command line of the imbalance report; see the package's docstring."""

import argparse

from ...engine.weights_fit import CheckpointError
from ..inspect import load_experiment
from .write import report_of_checkpoint, report_of_folder

__all__ = ["main"]


def main(argv=None):
    """Write the report; prints and returns the path of the page."""
    parser = argparse.ArgumentParser(
        prog="python -m d2_balanced.analysis.report", description="The imbalance report of a run or of a checkpoint."
    )
    parser.add_argument("run", nargs="?", metavar="RUN_DIR", help="output folder of a run")
    parser.add_argument("--config-file", default="", help="in place of a run: config of a model (.yaml or .py)")
    parser.add_argument("--weights", default="", help="its checkpoint; default: the one that the config names")
    parser.add_argument("--train-json", default="", help="COCO annotation file, in place of the config's training set")
    parser.add_argument("--train-images", default="", help="folder of its images")
    parser.add_argument("--images", type=int, default=100, help="images that a checkpoint is measured on")
    parser.add_argument("--pictures", type=int, default=4, help="training images to draw")
    parser.add_argument("--output", default="", help="the report goes to OUTPUT/imbalance; default: RUN_DIR")
    parser.add_argument("--opts", nargs="*", default=[], metavar="SETTING", help="overrides of --config-file")
    args = parser.parse_args(argv)
    if bool(args.run) == bool(args.config_file):
        parser.error("give either RUN_DIR or --config-file")
    if args.config_file and not args.output:
        parser.error("--config-file needs --output")
    if bool(args.train_json) != bool(args.train_images):
        parser.error("--train-json and --train-images belong together")
    try:
        path = _run(args)
    except (ValueError, OSError, CheckpointError) as error:
        raise SystemExit(f"error: {error}") from error
    print(path)
    return path


def _run(args):
    from ...engine.experiment import OwnData

    sizes = {"images": args.images, "pictures": args.pictures}
    if args.run:
        return report_of_folder(args.run, output=args.output, **sizes)
    own_data = OwnData(train_json=args.train_json, train_images=args.train_images)
    experiment = load_experiment(args.config_file, args.opts, own_data)
    return report_of_checkpoint(experiment, args.weights, args.output, **sizes)


if __name__ == "__main__":
    main()
