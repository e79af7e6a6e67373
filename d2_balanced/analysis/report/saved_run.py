"""Opens a run's folder for the report, with as much as is still there."""

from __future__ import annotations

from ...engine.build import check_data
from ...engine.open import open_checkpoint, open_run
from ...recording.hook import find_recorded_heads
from ...utils.errors import DataError, UsageError

__all__ = ["open_to_report"]


def open_to_report(folder: str):
    """``(experiment, model, problem)`` of a run: the model, which can be recorded, has the last checkpoint's weights.

    Where something is missing, or the model is no two-stage detector, the parts that depend on it are ``None``, and
    ``problem`` says why; it also says what is wrong with the training images, which the model does not depend on.
    """
    experiment = None
    try:
        experiment = open_run(folder)
        experiment.make_recordable()
        experiment.use_own_data()
        if not experiment.settings.weights:
            return experiment, None, "The run's folder has no checkpoint."
        model = open_checkpoint(experiment, check=find_recorded_heads)
    except UsageError as error:
        return experiment, None, f"The run's config, data or checkpoint could not be used: {error}"
    try:
        check_data(experiment, experiment.train_datasets)
    except DataError as error:
        return experiment, model, f"The run's training images could not be used: {error}"
    return experiment, model, ""
