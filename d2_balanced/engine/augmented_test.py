"""The evaluation with test-time augmentation (``TEST.AUG``, ``train.test_aug``), beside the plain one."""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Optional

import torch

from ..evaluation.coco import INFERENCE
from ..modeling.test_time_augmentation import AugmentedRCNN
from ..utils.errors import doing, usage
from .distributed import broadcast_buffers
from .experiment import Classes, Experiment

__all__ = ["augmented", "evaluate_augmented"]

SUFFIX = "_TTA"  # as detectron2 has it in results and folders

logger = logging.getLogger(__name__)


def augmented(experiment: Experiment, model: torch.nn.Module) -> AugmentedRCNN:
    """``model`` with the experiment's test-time augmentation; raises ``ConfigError`` where it cannot be had."""
    with usage("TEST.AUG (yaml), train.test_aug (LazyConfig)", ValueError):
        return AugmentedRCNN(model, **experiment.settings.test_aug)


@doing("while evaluating with test-time augmentation")
def evaluate_augmented(
    experiment: Experiment, model: AugmentedRCNN, classes: Classes = (), stop: Optional[Callable[[], bool]] = None
) -> Dict[str, Any]:
    """The results of ``experiment.evaluate``, with files in ``inference_TTA`` and names as detectron2's.

    ``bbox_TTA`` stands beside the ``bbox`` of the plain evaluation, ``<data set>_TTA`` for each further data set.
    """
    broadcast_buffers(model)
    logger.info("Test-time augmentation: %s", experiment.settings.test_aug)
    found = experiment.evaluate(model, classes, stop, INFERENCE + SUFFIX)
    return {name + SUFFIX: values for name, values in found.items()}
