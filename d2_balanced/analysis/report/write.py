"""Makes the report of a run that has just ended, of a run's folder, or of a checkpoint: ``<output>/imbalance/``."""

from __future__ import annotations

import itertools
import os

from ...recording.file import FILE, find_recording
from ...utils.errors import DataError
from ...utils.output_folder import require_writable
from ..training_samples import open_recordable, record_once
from .findings import judge
from .gather import gather
from .page import write_page
from .page_figures import save_figures
from .rois import save_roi_pictures
from .saved_run import open_to_report

__all__ = ["PAGE", "report_of_checkpoint", "report_of_folder", "report_of_training"]

PAGE = "report.html"
FOLDER = "imbalance"  # below the output folder


def report_of_training(experiment, model, *, pictures: int = 4) -> str:
    """The report of a run that has just ended; returns the path of the page.

    ``model`` is the plain module, not wrapped in DDP. It stays in training mode, and its adaptive components have seen
    some more images.
    """
    folder = experiment.settings.output_dir
    data = gather(folder, model=model, datasets=experiment.train_datasets)
    return _write(folder, data, model, experiment, pictures)


def report_of_folder(folder: str, *, output: str = "", images: int = 100, pictures: int = 4) -> str:
    """The report of a finished (or stopped) run's folder.

    What the run did not record is measured on its last checkpoint, with ``images`` training images. Raises
    ``DataError`` where there is neither or the recording is damaged, ``ConfigError`` if the model is no two-stage
    detector.
    """
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder {folder!r}.")
    recording = find_recording(folder)
    experiment, model, problem = open_to_report(folder)
    if problem and recording is None:
        raise DataError(
            f"{folder!r} has no {FILE} with a window of iterations, and no checkpoint could be measured in its place: "
            f"{problem}"
        )
    output = output or folder
    require_writable(os.path.join(output, FOLDER))
    datasets = experiment.train_datasets if experiment is not None else ()
    missing = {"pictures": problem} if problem else {}
    settings = {"model": model, "datasets": datasets, "missing": missing, "recording": recording}
    if recording is None:
        settings.update(_measure(experiment, model, images, output, "the run's last checkpoint"))
    return _write(output, gather(folder, **settings), model, experiment, pictures)


def report_of_checkpoint(experiment, weights: str, output: str, *, images: int = 100, pictures: int = 4) -> str:
    """The report of a checkpoint on the experiment's training set.

    ``weights`` is the checkpoint's path; empty: the weights that the config names. Raises ``ConfigError`` without any,
    and for a model that is no two-stage detector.
    """
    require_writable(os.path.join(output, FOLDER))
    model = open_recordable(experiment, weights)
    measured = _measure(experiment, model, images, output, os.path.basename(experiment.settings.weights))
    data = gather(output, model=model, datasets=experiment.train_datasets, **measured)
    return _write(output, data, model, experiment, pictures)


def _measure(experiment, model, images, output, name):
    """Counts of a checkpoint, as arguments of ``gather``; they are kept in ``<output>/imbalance/imbalance.jsonl``."""
    recording = record_once(experiment, model, images, os.path.join(output, FOLDER))
    return {"recording": recording, "how": f"measured on {name}, without training"}


def _write(output: str, data, model, experiment, pictures: int) -> str:
    folder = os.path.join(output, FOLDER)
    os.makedirs(folder, exist_ok=True)
    figures = save_figures(data, folder)
    drawn = [] if model is None else _draw_rois(model, experiment, folder, pictures, data.missing)
    path = os.path.join(folder, PAGE)
    write_page(data, judge(data, experiment if model is not None else None), figures, drawn, path)
    return path


def _draw_rois(model, experiment, folder, number, missing) -> list:
    if number < 1:
        missing["pictures"] = "None were asked for."
    if "pictures" in missing:
        return []
    try:
        return save_roi_pictures(model, itertools.islice(experiment.build_loader(), number), folder, number)
    except DataError as error:  # the loader's: an image is no longer there, or is damaged
        # The last line: before it, a worker of the loader puts a traceback.
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        missing["pictures"] = f"The training images could not be read: {reason}"
        return []
