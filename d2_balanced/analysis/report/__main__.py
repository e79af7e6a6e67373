"""Command line of the imbalance report; see the package's docstring."""

from ...arguments.report import argument_parser
from ...engine.open import open_experiment
from ...utils.command import command
from ..training_samples import own_training_data
from .write import report_of_checkpoint, report_of_folder

__all__ = ["main"]


@command("python -m d2_balanced.analysis.report")
def main(argv=None):
    """Write the report; prints and returns the path of the page."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if bool(args.run) == bool(args.config_file):
        parser.error("give either RUN_DIR or --config-file")
    if args.config_file and not args.output:
        parser.error("--config-file needs --output")
    _refuse_options_of_config(parser, args)
    own_data = own_training_data(parser, args)
    path = _run(args, own_data)
    print(path)
    return path


def _refuse_options_of_config(parser, args):
    """End with an error where RUN_DIR, which has its own config, data and weights, is given others."""
    options = {"--weights": args.weights, "--train-json": args.train_json, "--train-images": args.train_images}
    given = [option for option, value in {**options, "--opts": args.opts}.items() if value]
    if args.run and given:
        parser.error(f"{', '.join(given)}: only with --config-file; RUN_DIR has its own config, data and checkpoint")


def _run(args, own_data):
    sizes = {"images": args.images, "pictures": args.pictures}
    if args.run:
        return report_of_folder(args.run, output=args.output, **sizes)
    experiment = open_experiment(args.config_file, args.opts, own_data)
    return report_of_checkpoint(experiment, args.weights, args.output, **sizes)


if __name__ == "__main__":
    main()
