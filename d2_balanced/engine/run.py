"""From arguments to a finished run: what can go wrong is tried first, in the order of what it costs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..config import ConfigError
from ..data.layouts import data_of_folder, set_aside
from ..utils.atomic import disk_full
from ..utils.errors import CheckpointError, OutputError, doing, note
from . import start
from .augmented_test import augmented, evaluate_augmented
from .build import build_trainer, check_data, evaluate_model
from .checkpoint import what_is_safe
from .checkpoint_files import checkpoints_in
from .ensemble import ensemble_of
from .experiment import Experiment, OwnData
from .nonfinite import NonFiniteLossError
from .open import open_checkpoint, open_experiment, open_run, saved_own_data, saved_seed
from .rng import resolve_seed
from .trackers import require_trackers
from .trainer import BalancedTrainer

__all__ = ["evaluate", "fit_to_batch_size", "given_data", "load_experiment", "prepare", "train"]

logger = logging.getLogger(__name__)


def load_experiment(args: argparse.Namespace) -> Experiment:
    """The checked config of the command line's arguments (``train.argument_parser``); nothing else is read yet."""
    own_data, said = given_data(args, trains=not args.eval_only and not args.resume)
    if not args.config_file:
        if not (args.resume and args.output_dir):
            raise ConfigError("--config-file is missing. Only --resume --output-dir RUN does without: it takes the run's.")
        experiment = open_run(args.output_dir, args.opts, own_data, args.add)
    else:
        if args.resume and args.output_dir and not any(own_data):
            own_data = saved_own_data(args.output_dir)
        experiment = open_experiment(args.config_file, args.opts, own_data, args.add)
        experiment.set_run(output_dir=args.output_dir or None)
    experiment.data_notes, experiment.data_warnings = said
    return experiment


def given_data(args: argparse.Namespace, trains: bool = True) -> Tuple[OwnData, Tuple[Sequence[str], Sequence[str]]]:
    """The paths of own data on the command line, and the notes and warnings about them; ``ConfigError`` for those that say
    less than they seem to."""
    given = OwnData(args.train_json, args.train_images, args.val_json, args.val_images)
    for name, path in {**given._asdict(), "data": args.data}.items():
        if path is not None and not path.strip():
            raise ConfigError(f"--{name.replace('_', '-')} is empty. Is a variable of the shell not set?")
    if args.data or args.val_fraction is not None:
        return _data_of_folder(args, given)
    if given.val_json and not given.train_json and trains:
        raise ConfigError(
            "--val-json alone would train on the config's own data set. Add --train-json and --train-images, or "
            "--eval-only; to train on a registered data set, name the validation set in the config, too."
        )
    return _absolute(given), ((), ())


def _data_of_folder(args: argparse.Namespace, given: OwnData) -> Tuple[OwnData, Tuple[Sequence[str], Sequence[str]]]:
    if args.data and any(given):
        raise ConfigError("--data names the annotation files and image folders itself; leave out --train-json and the like.")
    if args.data:
        found = data_of_folder(args.data, args.val_fraction, args.val_seed)
    elif given.train_json and given.train_images and not given.val_json:
        found = set_aside(given.train_json, given.train_images, args.val_fraction, args.val_seed)
    else:
        raise ConfigError("--val-fraction splits --data, or --train-json and --train-images, where there is no validation set.")
    return _absolute(OwnData(*found[:4])), (found.notes, found.left_out)


def _absolute(data: OwnData) -> OwnData:
    """So that a run finds its data again when it is resumed from another folder."""
    return OwnData(*(os.path.abspath(os.path.expanduser(path)) if path else "" for path in data))


def fit_to_batch_size(experiment: Experiment, auto_scale: bool) -> None:
    """Scale the schedule from the config file's batch size to the one in use, or say that it was not."""
    reference, batch_size = experiment.reference_batch_size, experiment.settings.batch_size
    old = experiment.schedule
    if auto_scale:
        experiment.require_plain_sgd()
        experiment.set_schedule(old.for_batch_size(reference or batch_size, batch_size))
        change = old.describe_change(experiment.schedule)
        logger.info("--auto-scale-lr: batch size %s -> %d\n%s", reference, batch_size, change)
    elif reference and batch_size != reference:
        logger.warning(
            "The batch size is %d, the config file's is %d: the learning rate %g is used as it is (--auto-scale-lr would "
            "scale it, and the schedule).", batch_size, reference, old.lr,
        )


def prepare(
    experiment: Experiment, *, resume: bool = False, auto_scale_lr: bool = False, epochs: Optional[float] = None,
    accept_changed_data: bool = False, require_checkpoint: bool = False,
) -> BalancedTrainer:
    """Everything up to a trainer that only has to run. Raises a ``UsageError`` for what the user has to mend.

    Args:
        accept_changed_data: resume although the training data are not those of the run.
        require_checkpoint: resume only if there is a checkpoint.
    """
    settings = experiment.settings
    if require_checkpoint and not (resume and checkpoints_in(settings.output_dir)):
        raise CheckpointError(f"--require-checkpoint: there is none to --resume from in {settings.output_dir!r}.")
    require_trackers(settings.tracking)
    start.require_divisible(settings.batch_size, settings.accumulate)
    start.require_run_folder(settings.output_dir)
    if not resume:
        start.refuse_other_run(settings.output_dir)
    start.require_weights(settings.weights)
    _start(experiment, resume)
    fit_to_batch_size(experiment, auto_scale_lr)
    experiment.use_own_data()
    matched = [name for name in experiment.test_datasets if name not in experiment.train_datasets]
    check_data(experiment, [*experiment.train_datasets, *experiment.test_datasets], matched=matched)
    with doing("while preparing the evaluation"):
        experiment.check_evaluation()
    with doing("while opening the training data"):
        loader = experiment.build_loader()
    if getattr(loader, "repeats", None):
        names = MetadataCatalog.get(experiment.train_datasets[0]).get("thing_classes", [])
        logger.info("%s", loader.repeats.describe(names))
    if epochs is not None:
        if not hasattr(loader, "batches_per_epoch"):
            raise ConfigError("--epochs needs d2_balanced's loader (build_train_loader), which knows how long an epoch is.")
        old = experiment.schedule
        experiment.set_schedule(old.for_epochs(epochs, loader.batches_per_epoch))
        logger.info("--epochs %g:\n%s", epochs, old.describe_change(experiment.schedule))
    logger.info("Settings that differ from the defaults (all of them are in config.yaml):\n%s", experiment.describe())
    trainer = build_trainer(experiment, loader, resume=resume, accept_data=accept_changed_data)
    _require_something_left(trainer, experiment)
    if _lacks_evaluation(trainer, experiment):
        logger.warning("The evaluation after %d iterations is missing: it is made up for.", trainer.last_finished_iter + 1)
    if trainer.last_finished_iter < 0:
        start.keep_older_metrics(settings.output_dir)
    if comm.is_main_process():
        start.save_config(experiment, resumed=trainer.last_finished_iter >= 0)
    return trainer


def _require_something_left(trainer: BalancedTrainer, experiment: Experiment) -> None:
    """Raise ``ConfigError`` for a resume of a run that is complete; its last evaluation counts."""
    done, last = trainer.last_finished_iter + 1, experiment.schedule.max_iter
    keys = [change.split(":")[0].rsplit(".", 1)[-1].lower() for change in trainer.resume_changes]
    if trainer.ended_early and not {"patience", "best_metric", "max_iter"} & set(keys):
        raise ConfigError(
            f"Nothing is left to train: the run ended after {done} iterations, as {trainer.ended_early}. Raise "
            "TEST.PATIENCE / train.patience to go on, or evaluate with --eval-only --resume."
        )
    if done < last or (done == last and _lacks_evaluation(trainer, experiment)):
        return
    raise ConfigError(
        f"Nothing is left to train: the checkpoint has done {done} iterations, and SOLVER.MAX_ITER / "
        f"train.max_iter is {last}. Raise it to go on, or evaluate with --eval-only --resume."
    )


def _lacks_evaluation(trainer: BalancedTrainer, experiment: Experiment) -> bool:
    """Whether the run that is resumed was stopped or killed in the evaluation after its last step."""
    done, schedule = trainer.last_finished_iter + 1, experiment.schedule
    last = done == schedule.max_iter
    due = last or (schedule.eval_period > 0 and done % schedule.eval_period == 0)
    if not done or not due or not experiment.test_datasets:
        return False
    return not start.is_evaluated(experiment.settings.output_dir, done - 1, last)


def _start(experiment: Experiment, resume: bool) -> None:
    """Log, device and seed."""
    settings = experiment.settings
    start.start_log(settings.output_dir)
    saved = saved_seed(settings.output_dir) if resume and settings.seed < 0 else None
    saved = comm.all_gather(saved)[0]
    seed = resolve_seed(settings.seed) if saved is None else saved
    experiment.set_run(seed=seed, device=start.choose_device(settings.device))
    seed_all_rng(seed + comm.get_rank())  # for whatever is drawn outside the seeded steps
    logger.info("Seed %d, output folder %s", seed, settings.output_dir)


def train(trainer: BalancedTrainer, experiment: Experiment) -> int:
    """Run a prepared trainer; returns 0, or a signal's exit status (128 + its number) if one stopped it.

    Raises ``NonFiniteLossError``, after writing what is known of the batch to nonfinite_loss.json.
    """
    folder = experiment.settings.output_dir
    try:
        done, last = trainer.last_finished_iter + 1, experiment.schedule.max_iter
        if _lacks_evaluation(trainer, experiment):
            trainer.finish_up(last)
        if done < last and not trainer.stop_reason:
            trainer.train(done, last)
    except NonFiniteLossError as error:
        logger.error("%s", error)
        error.write(folder)
        raise
    except Exception as error:
        note(error, f"in iteration {trainer.iter}")
        full = disk_full(getattr(error, "filename", None) or os.path.join(folder, "metrics.json or another log"), error)
        if full is not None:
            raise OutputError(f"{full} {what_is_safe(folder)}") from error
        if isinstance(error, torch.cuda.OutOfMemoryError):
            logger.error("Out of GPU memory: raise SOLVER.ACCUMULATE, set SOLVER.AMP.ENABLED, or use smaller images.")
        raise
    if trainer.stop_reason:
        logger.warning("Stopped after iteration %d: %s.", trainer.last_finished_iter, trainer.stop_reason)
    if not trainer.interrupted:
        logger.info("Done. Checkpoints, results.csv and results.png are in %s", folder)
        return 0
    return 128 + getattr(signal, trainer.stop_reason, signal.SIGTERM)


def evaluate(experiment: Experiment, resume: bool, ensemble: Sequence[str] = ()) -> Dict[str, Any]:
    """``--eval-only``: metrics of the given weights, or with ``resume`` of the last checkpoint in the output folder.

    Args:
        ensemble: runs or checkpoints whose detections are mixed with these weights' (``ensemble.py``).
    """
    settings = experiment.settings
    if ensemble and checkpoints_in(settings.output_dir):
        raise OutputError(
            f"--ensemble: {settings.output_dir!r} is the folder of a run, whose own evaluation would be replaced; give another "
            "--output-dir."
        )
    start.require_run_folder(settings.output_dir)
    if not settings.weights and not resume:
        raise ConfigError(
            "--eval-only needs weights: MODEL.WEIGHTS <file> (yaml), train.init_checkpoint=<file> (LazyConfig), or "
            "--resume for the last checkpoint of the output folder."
        )
    if not resume:
        start.require_weights(settings.weights)
    _start(experiment, resume)
    experiment.use_own_data()
    if not experiment.test_datasets:
        raise ConfigError("--eval-only needs a data set: --val-json and --val-images, DATASETS.TEST, dataloader.test.")
    weights = next(iter(checkpoints_in(settings.output_dir)), "") if resume else settings.weights
    if not weights:
        raise CheckpointError(f"There is no checkpoint in {settings.output_dir!r} to evaluate.")
    model = open_checkpoint(experiment, weights)
    check_data(experiment, experiment.test_datasets, matched=experiment.test_datasets if experiment.classes else ())
    if ensemble:
        with doing("while opening the detectors of --ensemble"):
            model = ensemble_of(experiment, model, ensemble)
    with_augmentation = augmented(experiment, model) if settings.augmented_test else None
    results = evaluate_model(experiment, model, experiment.classes)
    if with_augmentation is not None:
        results.update(evaluate_augmented(experiment, with_augmentation, experiment.classes))
    return results
