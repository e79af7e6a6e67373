"""What a checkpoint's box heads would train on, for any data set, without training (docs/ANALYSIS.md):

    python -m d2_balanced.analysis.training_samples --config-file CONFIG --weights model_final.pth --output inspected
    python -m d2_balanced.analysis.training_samples --config-file CONFIG --weights model_final.pth \\
        --train-json val.json --train-images val --images 500 --output inspected

Images come from the training loader, with its augmentation; proposals, matching and sampling are those of training.
Writes ``imbalance.jsonl`` (one window) and its figures; with ``--targets`` also ``targets.png``, the regression targets
of single proposals (Dynamic R-CNN, figure 2; take checkpoints of several iterations). A config with detectron2's
StandardROIHeads or CascadeROIHeads is built with BalancedROIHeads, which have the same weights and train alike.
"""

from __future__ import annotations

import os

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from ..arguments.samples import argument_parser
from ..engine.build import check_data
from ..engine.experiment import OwnData
from ..engine.open import open_checkpoint, open_experiment
from ..recording.file import FILE, append_line, counts_line, read_recording
from ..recording.hook import find_recorded_heads
from ..recording.recorder import ImbalanceRecorder, regression_targets
from ..utils.command import command
from ..utils.errors import ConfigError, OutputError
from ..utils.fonts import fit_figure
from ..utils.output_folder import require_writable
from .imbalance_figures import save_plots
from .quality_figures import draw_targets

__all__ = [
    "TargetPoints",
    "inspect_model",
    "main",
    "open_recordable",
    "own_training_data",
    "record_once",
    "refuse_folder_of_run",
    "run_in_training_mode",
]

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@torch.no_grad()
def inspect_model(model, batches, num_images, seed=0):
    """Count what ``model`` would train on: ``{(stage, branch): ImbalanceCounts}``.

    Args:
        model: a detector with ``BalancedROIHeads``; it is left in training mode, its weights and statistics as they are
            (those of adaptive matchers and losses aside).
        batches: iterable of lists of training inputs.
        num_images: stop after so many.
        seed: of the sampling.

    Raises ``ConfigError`` for ``num_images`` below 1 and for a model that cannot be recorded.
    """
    if num_images < 1:
        raise ConfigError(f"inspect_model: num_images must be 1 or more, got {num_images}")
    recorder = ImbalanceRecorder(find_recorded_heads(model))
    run_in_training_mode(model, _first(batches, num_images), recorder, seed)
    return recorder.counts


class TargetPoints:
    """An observer that keeps the IoU and the regression targets (n, 5) of the first stage's proposals above an IoU."""

    def __init__(self, above=0.5):
        self.above, self.rows = above, []

    @torch.no_grad()
    def observe(self, view):
        for image in view.labeled[0] if view.stage == 0 else ():
            if image.has("gt_boxes"):
                chosen = image[(image.matched_ious >= self.above) & ~image.is_gt & (image.gt_classes >= 0)]
                targets = regression_targets(chosen.proposal_boxes.tensor, chosen.gt_boxes.tensor)
                self.rows.append(torch.cat([chosen.matched_ious[:, None], targets], dim=1).cpu())

    @property
    def points(self):
        """All of them, as an array."""
        return torch.cat(self.rows).numpy() if self.rows else torch.zeros(0, 5).numpy()


def _first(batches, num_images):
    """Batches until ``num_images`` images have been given."""
    for batch in batches:
        yield batch[:num_images]
        num_images -= len(batch)
        if num_images <= 0:
            return


@torch.no_grad()
def run_in_training_mode(model, batches, observer, seed=0):
    """Run the forward pass of training on ``batches``, seen by ``observer``; normalisation statistics stay as they are.

    Args:
        observer: an object for ``BalancedROIHeads.observers``.
        seed: of the sampling.
    """
    heads = find_recorded_heads(model)
    model.train()
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.eval()
    heads.observers.append(observer)
    torch.manual_seed(seed)
    try:
        with EventStorage():
            for batch in batches:
                model(batch)
    finally:
        heads.observers.remove(observer)


def open_recordable(experiment, weights=""):
    """The experiment's model with a checkpoint's weights (``engine.open.open_checkpoint``), to be recorded.

    detectron2's ROI heads become ``BalancedROIHeads``. Also raises ``ConfigError`` for a model that cannot be recorded,
    and ``DataError`` where the training set has errors, both before the weights are read.
    """

    def check(model):
        find_recorded_heads(model)
        check_data(experiment, experiment.train_datasets)

    experiment.make_recordable()
    return open_checkpoint(experiment, weights, check=check)


def record_once(experiment, model, num_images, folder):
    """Run :func:`inspect_model` on the training set; the counts become the one window of ``imbalance.jsonl``.

    Raises ``OutputError`` if ``folder`` is a run's (:func:`refuse_folder_of_run`).
    """
    refuse_folder_of_run(folder)
    counts = inspect_model(model, experiment.build_loader(), num_images)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, FILE), "w", encoding="utf-8"):
        pass  # a new recording
    append_line(folder, counts_line(0, 0, counts))
    return read_recording(folder)


def refuse_folder_of_run(folder):
    """Raise ``OutputError`` if a training wrote into ``folder``: its recording would be lost, or taken for another."""
    found = [name for name in ("config.yaml", "metrics.json") if os.path.isfile(os.path.join(folder, name))]
    if found:
        raise OutputError(
            f"{folder!r} is the folder of a training run (it has {' and '.join(found)}), whose {FILE} is not to be "
            "replaced. Choose another --output."
        )


def own_training_data(parser, args):
    """The data set of ``--train-json`` and ``--train-images``; the command ends with an error where only half of it is given."""
    if bool(args.train_json) != bool(args.train_images):
        parser.error("--train-json and --train-images belong together")
    return OwnData(train_json=args.train_json, train_images=args.train_images)


@command("python -m d2_balanced.analysis.training_samples")
def main(argv=None):
    """The commands at the top of this module; prints and returns the paths of the PNGs."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    own_data = own_training_data(parser, args)
    paths = _run(args, own_data)
    print("\n".join(paths))
    return paths


def _run(args, own_data):
    refuse_folder_of_run(args.output)  # before time is spent on the model
    require_writable(args.output)
    experiment = open_experiment(args.config_file, args.overrides, own_data)
    model, targets = open_recordable(experiment, args.weights), TargetPoints()
    if args.targets:
        find_recorded_heads(model).observers.append(targets)
    recording = record_once(experiment, model, args.images, args.output)
    paths = save_plots({os.path.basename(os.path.normpath(args.output)): recording}, args.output)
    figure = draw_targets(targets.points) if args.targets else None
    if figure is not None:
        paths.append(os.path.join(args.output, "targets.png"))
        fit_figure(figure).savefig(paths[-1], dpi=110)
    return paths


if __name__ == "__main__":
    main()
