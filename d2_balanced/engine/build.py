"""Puts an experiment's parts together, in the same way for yacs and LazyConfig: trainer, hooks, writers, evaluation."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any, Dict, List

import torch
from detectron2.engine import hooks as d2_hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter

from ..data.check_dataset import raise_or_warn, run_checks
from ..data.proposal_files import check_proposal_files
from ..recording.hook import RecordImbalance
from ..utils.errors import ConfigError, doing, usage
from .augmented_test import augmented, evaluate_augmented
from .best import BestCheckpoint
from .checkpoint import BalancedCheckpointer
from .distributed import broadcast_buffers, raise_in_all, wrap_ddp
from .experiment import Experiment
from .history import ResultsTable
from .hooks import Checkpoints, EndIteration, Evaluate, LearningRate, StopOnSignal
from .identity import RunIdentity, identity_in, identity_of, resume_changes
from .precision import build_precision
from .rng import ReseedEveryStep, seed_step
from .trackers import build_trackers
from .trainer import BalancedTrainer
from .writers import MetricsFile, ProgressBar, TensorBoard, WritePeriodically

__all__ = ["build_hooks", "build_trainer", "check_data", "evaluate_model"]
logger = logging.getLogger(__name__)


@doing("while checking the data")
def check_data(experiment: Experiment, names, *, matched=()) -> None:
    """Check the named data sets, and their precomputed proposals, against the model. The main process does.

    The classes of the ``matched`` ones are matched to the model's by name, so that their number may be another one.

    Raises ``DataError`` for faulty data. What the main process raises, the others do, too, so that none waits for it.
    """
    error = None
    if comm.is_main_process():
        for line in experiment.data_notes:
            logger.info("%s", line)
        try:
            raise_or_warn(experiment.data_warnings, strict=experiment.strict_data, logger=logger)
            trained = [name for name in names if name in experiment.train_datasets]
            mappers = {name: experiment.build_mapper(name in trained) for name in names}
            run_checks(names, experiment.num_classes, mask_format=experiment.mask_format, trained=trained, matched=matched,
                       mappers=mappers,
                       strict=experiment.strict_data, logger=logger)
            for datasets, files in experiment.proposal_files:
                check_proposal_files(datasets, files, names)
        except Exception as found:
            error = found
    raise_in_all(error)


@doing("while building the trainer")
def build_trainer(experiment: Experiment, loader, *, resume: bool, accept_data: bool = False) -> BalancedTrainer:
    """Model, optimizer, scheduler and hooks, from the last checkpoint (``resume``) or with given weights.

    The first iteration to train is then ``trainer.last_finished_iter + 1``.
    Args:
        accept_data: resume although the training data are not those of the run.

    Raises ``CheckpointError`` if the checkpoint is of another model, ``ConfigError`` if it cannot be resumed with what
    has changed since.
    """
    settings = experiment.settings
    seed_step(settings.seed, -1)  # the same random weights in every process
    model = experiment.build_model()
    _require_levels(model)
    _require_channels(model, loader)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("%s with %.2f million trained parameters", type(model).__name__, trained / 1e6)
    optimizer = experiment.build_optimizer(model)
    trainer = BalancedTrainer(
        wrap_ddp(model, **experiment.ddp_settings),
        loader,
        optimizer,
        experiment.build_scheduler(optimizer),
        accumulate=settings.accumulate,
        precision=_precision(settings),
    )
    about = identity_of(experiment, model)
    checkpointer = BalancedCheckpointer(
        model, settings.output_dir, max_to_keep=settings.max_to_keep, about=about, trainer=trainer
    )
    trainer.register_hooks(build_hooks(experiment, trainer, checkpointer))
    checkpointer.check_before_training()

    def compare(checkpoint):
        trainer.resume_changes = _changes(checkpoint, about, accept_data)

    checkpointer.resume_or_load(settings.weights, resume=resume, check=compare)
    trainer.resumed_from = checkpointer.resumed_from
    return trainer


def _changes(checkpoint, about: RunIdentity, accept_data: bool) -> List[str]:
    """What a resume changes of the run in ``checkpoint``, which is logged; ``ConfigError`` for what cannot change."""
    before = identity_in(checkpoint)
    if before is None:
        logger.warning("The checkpoint does not say which config, classes and data its run has: they are not compared.")
        return []
    changes = resume_changes(before, about, accept_data)
    if changes:
        logger.warning("This run goes on with changes:\n%s", "\n".join(f"    {change}" for change in changes))
    return changes


def _require_levels(model: torch.nn.Module) -> None:
    """Raise ``ConfigError`` where a part asks for a level that the backbone does not have; it would fail only in use."""
    backbone = getattr(model, "backbone", None)
    levels = list(backbone.output_shape()) if hasattr(backbone, "output_shape") else []
    for name, part in model.named_children():
        for key in ("box_in_features", "mask_in_features", "keypoint_in_features", "head_in_features", "in_features"):
            unknown = [level for level in getattr(part, key, None) or () if level not in levels]
            if levels and part is not backbone and unknown:
                raise ConfigError(
                    f"model.{name}.{key}: the backbone has no {unknown[0]!r}; it has {', '.join(levels)}."
                )


def _require_channels(model: torch.nn.Module, loader) -> None:
    """Prepare the first training image, and raise ``ConfigError`` if it has other channels than the model takes."""
    mean = getattr(model, "pixel_mean", None)
    sample = loader.first_sample() if hasattr(loader, "first_sample") else None
    image = sample.get("image") if isinstance(sample, dict) else None
    if mean is None or not isinstance(image, torch.Tensor):
        return
    if len(image) not in (1, mean.numel()):  # one channel is normalised to as many as there are means
        raise ConfigError(
            f"Images are read with {len(image)} channels (INPUT.FORMAT; lazy: dataloader.train.mapper.image_format), and "
            f"the model takes {mean.numel()} (MODEL.PIXEL_MEAN; lazy: model.pixel_mean)."
        )


def _precision(settings):
    with usage("SOLVER.AMP.ENABLED (yaml), train.amp.enabled (LazyConfig)", ValueError):
        return build_precision(settings.amp, torch.device(settings.device))


def build_hooks(experiment: Experiment, trainer: BalancedTrainer, checkpointer: BalancedCheckpointer) -> List[Any]:
    """All hooks of a run. They are called in this order, and the order matters:

    1. the seed of the step comes before anything draws; the timer before anything takes time;
    2. modules adapt and the learning rate moves, so that
    3. the checkpoint holds the state after the step. It is written before the evaluation, which might fail;
    4. the evaluation, then those who use its result: the best checkpoint, and the logs.
    """
    settings, schedule = experiment.settings, experiment.schedule
    model = checkpointer.model
    hooks = [
        ReseedEveryStep(settings.seed),
        d2_hooks.IterationTimer(),
        StopOnSignal(),
        *experiment.build_method_hooks(model),
        *_recording_hooks(settings, model),
        EndIteration(model, settings.log_period),
        LearningRate(),
        Checkpoints(checkpointer, schedule.checkpoint_period),
    ]
    if experiment.test_datasets:
        classes = checkpointer.about.classes if checkpointer.about else ()
        stop = functools.partial(getattr, trainer, "stop_wanted")
        test = functools.partial(evaluate_model, experiment, model, classes, stop)
        hooks.append(Evaluate(schedule.eval_period, test))
        hooks.append(BestCheckpoint(checkpointer, settings.best_metric, settings.patience))
        if settings.augmented_test:
            views = augmented(experiment, model)
            hooks.append(Evaluate(0, functools.partial(evaluate_augmented, experiment, views, classes, stop)))
    if comm.is_main_process():
        hooks.append(WritePeriodically(lambda *span: build_writers(experiment, trainer, *span), settings.log_period))
        if ProgressBar.is_wanted():
            hooks.append(ProgressBar())
    return hooks


def _recording_hooks(settings, model) -> List[Any]:
    if not settings.recording:
        return []
    with usage("ANALYSIS (yaml), train.record_imbalance (LazyConfig)", ValueError):
        return [RecordImbalance(model, settings.output_dir, **settings.recording)]


def build_writers(experiment: Experiment, trainer: BalancedTrainer, start_iter: int, max_iter: int) -> List[Any]:
    """Lines in the log, metrics.json, TensorBoard events, results.csv and results.png; MLflow and W&B, if asked for."""
    settings = experiment.settings
    return [
        CommonMetricPrinter(max_iter),
        MetricsFile(os.path.join(settings.output_dir, "metrics.json"), start_iter, settings.log_period),
        TensorBoard(settings.output_dir, start_iter),
        ResultsTable(settings.output_dir, getattr(trainer.data_loader, "batches_per_epoch", None)),
        *build_trackers(experiment, trainer, start_iter),
    ]


@doing("while evaluating")
def evaluate_model(experiment: Experiment, model: torch.nn.Module, classes=(), stop=None) -> Dict[str, Any]:
    """Evaluate ``model`` as it is, with the main process's batch statistics in all processes; see ``evaluate``."""
    broadcast_buffers(model)
    return experiment.evaluate(model, classes, stop)
