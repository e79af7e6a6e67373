"""What the commands share that evaluate one or several checkpoints of a config on one data set."""

from __future__ import annotations

import os

from ..engine.experiment import OwnData
from ..engine.open import load_weights, open_experiment
from ..engine.start import choose_device
from ..utils.errors import ConfigError
from ..utils.output_folder import require_writable

__all__ = ["load_each", "open_for_evaluation", "parse"]


def parse(parser, argv=None):
    """The parsed arguments, with ``overrides``. Half a pair of data paths and missing weights end the command."""
    args = parser.parse_args(argv)
    if bool(args.val_json) != bool(args.val_images):
        parser.error("--val-json and --val-images belong together")
    missing = [path for path in args.weights if "://" not in path and not os.path.isfile(path)]
    if missing:
        parser.error(f"--weights: there is no file {missing[0]!r} (settings of the config come after another option)")
    require_writable(args.output)
    return args


def open_for_evaluation(args):
    """The experiment of the arguments on its device, with heads that can be recorded.

    Raises ``ConfigError`` unless there is one test data set.
    """
    own_data = OwnData(val_json=args.val_json, val_images=args.val_images)
    experiment = open_experiment(args.config_file, args.overrides, own_data)
    experiment.make_recordable()
    experiment.use_own_data()
    if len(experiment.test_datasets) != 1:
        raise ConfigError(f"one test data set is needed, the config has {list(experiment.test_datasets)}")
    experiment.set_run(device=choose_device(experiment.settings.device))
    return experiment


def load_each(model, paths):
    """Load each checkpoint completely, one after the other, and yield its path."""
    for path in paths:
        load_weights(model, path)
        yield path
