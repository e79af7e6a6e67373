"""Collects what the report tells of a run: its recording, its metrics, its evaluations and its components."""

from __future__ import annotations

import glob
import inspect
import os
import time
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from ...engine.history import results_rows
from ...evaluation.by_objects import ObjectCountGroups
from ...evaluation.detections import internal_detections, load_results
from ...evaluation.ground_truth import GroundTruth
from ...evaluation.write_results import read_report
from ...modeling import registry
from ...recording.file import Recording, read_recording
from ...recording.hook import find_recorded_heads
from ...utils.errors import DataError, UsageError

__all__ = ["RunData", "components_of", "gather", "names_of_classes"]


# Attributes at which components stand, also those of a class that nobody has registered.
_SEATS = {"proposal_matcher", "sampler", "cls_loss", "box_loss", "extra_proposals", "sample_weights"}
# Ways to draw positives that other samplers have as well -> the sampler that is known for it.
_POSITIVES = {"instance_balanced": "InstanceBalancedSampler", "hard_ratio": "HardRatioSampler"}


class RunData(NamedTuple):
    """All that the report is made of.

    ``evaluations``: content of ``inference/<data set>/metrics.json`` by data set; ``by_objects``: AP by number of
    objects, by data set; ``components``: class names of what the model uses; ``missing``: what could not be read, and
    why, by the names that ``sections.py`` has for it; ``iterations``: how long the run has trained, ``None`` if unknown;
    ``facts``: what the run is, as lines for the head of the page.
    """

    name: str
    how: str
    recording: Optional[Recording]
    rows: List[dict]
    evaluations: Dict[str, dict]
    by_objects: Dict[str, dict]
    class_names: Sequence[str]
    components: FrozenSet[str]
    missing: Dict[str, str]
    iterations: Optional[int] = None
    facts: Sequence[str] = ()


def gather(
    folder: str, *, model=None, datasets: Sequence[str] = (), recording=None, how="", missing=None
) -> RunData:
    """Collect the data of the run in ``folder``.

    Args:
        model: the run's model, for the names of its components; without it they are unknown.
        datasets: names of the training sets.
        recording: what was measured on a checkpoint, or has been read already; ``None``: it is read.
        how: where the counts come from, in words. A run's own recording gets a text made here.
        missing: reasons that the caller knows already.

    A part that cannot be read is empty, and ``missing`` says why. Raises ``FileNotFoundError`` or ``ValueError`` if
    there is no recording at all.
    """
    missing = dict(missing or {})
    recording = read_recording(folder) if recording is None else recording
    how = how or "recorded in training, iterations {} to {}".format(recording.windows[0][0], recording.windows[-1][1])
    rows = _rows(os.path.join(folder, "metrics.json"), missing)
    evaluations = _evaluations(folder, missing)
    by_objects = _by_objects(folder, evaluations, missing)
    components = components_of(model) if model is not None else frozenset()
    if any("gradient_annealing/factor" in row for row in rows):
        components |= {"GradientAnnealing"}
    name = os.path.basename(os.path.abspath(folder))
    iterations = max((row["iteration"] for row in rows), default=-1) + 1 or None
    return RunData(
        name, how, recording, rows, evaluations, by_objects, names_of_classes(datasets), components, missing, iterations,
        _facts(folder, datasets, iterations, evaluations),
    )


def _facts(folder: str, datasets: Sequence[str], iterations: Optional[int], evaluations: Dict[str, dict]) -> List[str]:
    facts = []
    for name in datasets:
        path = MetadataCatalog.get(name).get("json_file", "") if name in DatasetCatalog.list() else ""
        facts.append(f"Trained on {name}" + (f" ({os.path.join(*path.split(os.sep)[-3:])})" if path else ""))
    metrics = os.path.join(folder, "metrics.json")
    if iterations:
        facts.append(f"{iterations} iterations, until {time.strftime('%Y-%m-%d %H:%M', time.localtime(os.path.getmtime(metrics)))}")
    for name, report in evaluations.items():
        values = {key: report["metrics"].get("bbox", {}).get(key) for key in ("AP", "AP50", "AP75")}
        told = ", ".join(f"{key} {value:.1f}" for key, value in values.items() if value is not None)
        facts.append(f"Evaluated on {name}: {told or 'no AP'}")
    return facts


def components_of(model) -> FrozenSet[str]:
    """Class names of the components in the ROI heads, whatever their kind, and of the backbone; "branches" for several
    heads. Those of the RPN have " (RPN)" behind their names."""
    heads, rpn = find_recorded_heads(model), getattr(model, "proposal_generator", None)
    names = {type(model.backbone).__name__, *_components_in(heads)}
    names |= {f"{name} (RPN)" for name in _components_in(rpn)}
    return frozenset(names | ({"branches"} if len(heads.branches) > 1 else set()))


def _components_in(part) -> Iterator[str]:
    classes = tuple({c for name in registry.__all__ for _, c in getattr(registry, name) if inspect.isclass(c)})
    for seat, each in _objects_in(part, set()):
        if isinstance(each, classes) or seat in _SEATS:
            yield type(each).__name__
        positives = _POSITIVES.get(getattr(each, "positives", ""))
        if positives:
            yield positives


def _objects_in(owner, seen: Set[int]) -> Iterator[Tuple[str, object]]:
    """``(attribute, object)`` of all that hangs on an object, of whatever depth, but for what torch and others make."""
    attributes = {**getattr(owner, "_modules", {}), **getattr(owner, "__dict__", {})}
    for name, value in attributes.items():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if name == "observers" or name.startswith("_") or id(each) in seen or not hasattr(each, "__dict__"):
                continue
            seen.add(id(each))
            yield name, each
            if isinstance(each, nn.Module) or type(each).__module__.startswith("d2_balanced."):
                yield from _objects_in(each, seen)


def names_of_classes(datasets: Sequence[str]) -> List[str]:
    """Class names of the first data set; none where it is not registered."""
    if not datasets or datasets[0] not in DatasetCatalog.list():
        return []
    return list(MetadataCatalog.get(datasets[0]).get("thing_classes", ()))


def _rows(path: str, missing: Dict[str, str]) -> List[dict]:
    try:
        return results_rows(path, None)
    except DataError as error:
        missing["adaptive"] = str(error)
        return []


def _evaluations(folder: str, missing: Dict[str, str]) -> Dict[str, dict]:
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "inference", "*", "metrics.json"))):
        try:
            report = read_report(path)
        except DataError as error:
            for key in ("evaluation", "evaluation in part"):
                _add(missing, key, str(error))
        else:
            found.update({os.path.basename(os.path.dirname(path)): report} if "bbox" in report["metrics"] else {})
    return found


def _add(missing: Dict[str, str], key: str, reason: str) -> None:
    missing[key] = f"{missing[key]} {reason}" if key in missing else reason


def _by_objects(folder: str, evaluations: Dict[str, dict], missing: Dict[str, str]) -> Dict[str, dict]:
    found = {}
    for name, report in evaluations.items():
        try:
            found[name] = report["metrics"].get("bbox_by_objects") or _count_groups(folder, name, report.get("max_dets", 100))
        except UsageError as error:
            reason = f"The data set {name!r} or its results could not be read again: {error}"
            _add(missing, "evaluation in part", reason)
    return found


def _count_groups(folder: str, name: str, max_dets: int) -> dict:
    if name not in DatasetCatalog.list():
        raise DataError("it is not registered here (its config was not found, or names other paths)")
    results = load_results(os.path.join(folder, "inference", name, "coco_instances_results.json"))
    ground_truth = GroundTruth.from_catalog(name)
    detections = internal_detections(ground_truth, results).detections
    (values,) = ObjectCountGroups()(ground_truth, detections, max_dets=max_dets)[0].values()
    return values
