"""The evaluations in a folder: where their detections lie, and the data that they were made on."""

from __future__ import annotations

import glob
import os
from typing import List, NamedTuple

from detectron2.data import DatasetCatalog

from ..data.coco_paths import register_train_val
from ..engine.experiment import OwnData
from ..engine.open import open_run
from ..engine.start import configs_in
from ..evaluation.coco import INFERENCE
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.summary import RESULTS_NAME, results_of_runs
from ..evaluation.write_results import read_report
from ..utils.errors import DataError

__all__ = ["Evaluation", "evaluations_in", "ground_truth_of"]

REPORT, MAX_DETS = "metrics.json", 100
_NAME_DATA = "name them: --val-json FILE --val-images DIR"


class Evaluation(NamedTuple):
    """Detections on the data set ``name`` lie in ``folder``, below the run's folder ``owner``.

    ``json_file`` and ``image_root`` say what they were made on ("": not known), ``max_dets`` how many an image count.
    """

    folder: str
    owner: str
    name: str
    json_file: str
    image_root: str
    max_dets: int

    @property
    def results(self) -> str:
        return os.path.join(self.folder, RESULTS_NAME)

    @property
    def label(self) -> str:
        """The run's name, and which of its evaluations where that is not the plain one."""
        run, kind = (os.path.basename(path) for path in (self.owner, os.path.dirname(os.path.abspath(self.folder))))
        return f"{run}_{kind}" if kind != INFERENCE and kind.startswith(INFERENCE) else run


def evaluations_in(path: str) -> List[Evaluation]:
    """Those of a run's folder or of ``eval --output-dir``'s; those in ``inference_TTA``; or the one of a data set's folder.

    Raises ``DataError``, with what to do, where there is none.
    """
    if os.path.basename(path) == RESULTS_NAME:
        path = os.path.dirname(path) or "."
    for below in ("", "*", os.path.join(INFERENCE, "*")):
        found = sorted(glob.glob(os.path.join(glob.escape(path), below, RESULTS_NAME)))
        if found:
            return [_evaluation(os.path.dirname(file)) for file in found]
    raise DataError(_why_none(path))


def _evaluation(folder: str) -> Evaluation:
    whole = os.path.abspath(folder)
    above = os.path.dirname(whole)
    owner = os.path.dirname(above) if os.path.basename(above).startswith(INFERENCE) else whole
    report = os.path.join(folder, REPORT)
    content = read_report(report) if os.path.isfile(report) else {}
    name, json_file, images = (_text(content.get(key)) for key in ("dataset", "json_file", "image_root"))
    limit = content.get("max_dets")
    limit = limit if isinstance(limit, int) and limit > 0 else MAX_DETS
    return Evaluation(folder, owner, name or os.path.basename(whole), json_file, images, limit)


def _text(value) -> str:
    return value if isinstance(value, str) else ""


def _why_none(path: str) -> str:
    if not os.path.isdir(path):
        return f"{path} {'is a file' if os.path.exists(path) else 'does not exist'}; give the folder of a run or of an evaluation."
    none = f"{path} holds no detections: there is no {os.path.join(INFERENCE, '<data set>', RESULTS_NAME)} in it."
    below = results_of_runs(path)
    if below:
        runs = list(dict.fromkeys(os.path.dirname(os.path.dirname(os.path.dirname(file))) for file in below))
        return f"{none} Name one of the {len(runs)} evaluated runs below it, such as {runs[0]}."
    if configs_in(path):
        return f"{none} Evaluate first: d2_balanced eval --resume --output-dir {path}"
    return f"{none} Evaluate first: d2_balanced eval --config-file CONFIG --output-dir {path} MODEL.WEIGHTS FILE"


def ground_truth_of(evaluation: Evaluation, moved: OwnData = OwnData()) -> GroundTruth:
    """What the evaluation was made on: the validation data of ``moved``, if given; else what the evaluation itself says;
    else, for one that was made by an older version, or on data without an annotation file, the run's config.

    Raises ``DataError`` where that is not known, is gone, or has no annotations.
    """
    if moved.val_json or moved.val_images:
        truth = GroundTruth.from_catalog(register_train_val(val_json=moved.val_json, val_images=moved.val_images)[1].name)
    elif evaluation.json_file:
        truth = _of_file(evaluation)
    else:
        truth = _of_run(evaluation)
    if not truth.has_annotations:
        raise DataError(f"Data set {truth.name!r} has no annotations: nothing can be called a mistake.")
    return truth


def _of_file(evaluation: Evaluation) -> GroundTruth:
    path = evaluation.json_file
    if not os.path.isfile(path):
        raise DataError(f"{evaluation.folder}: the annotations of this evaluation, {path}, are not there now; {_NAME_DATA}.")
    truth = GroundTruth.from_file(path, evaluation.name)
    truth.image_root = evaluation.image_root
    return truth


def _of_run(evaluation: Evaluation) -> GroundTruth:
    """From the config; of own data only those of validation are looked at: the others may be gone."""
    if configs_in(evaluation.owner):
        own = open_run(evaluation.owner).own_data
        if own.val_json:
            register_train_val(val_json=own.val_json, val_images=own.val_images)
    if evaluation.name not in DatasetCatalog:
        raise DataError(
            f"{evaluation.folder} does not say which annotations {evaluation.name!r} has (so it is with evaluations of older "
            f"versions, and with data sets of your own code); {_NAME_DATA}."
        )
    return GroundTruth.from_catalog(evaluation.name)
