"""From a run to an exported file that has been tried: written, run on images, and compared with the detector.

    from d2_balanced.inference.export.write import export_run

    report = export_run("output/mine", "onnx", images=["photo.jpg"])
    report.path, report.agrees, report.rows
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from ...utils.errors import ConfigError, OutputError, did_you_mean
from ...utils.extras import import_extra
from ...utils.output_folder import require_writable
from ..images_of_run import images_of_run
from ..predictor import Predictor
from .about import about, input_format
from .differences import Bounds, Differences, differences
from .exported import ExportedDetector
from .formats import FORMATS
from .supported import check_exportable
from .tracing import outputs_of

__all__ = ["BOUNDS", "Report", "export_run"]

BOUNDS = Bounds(box=0.1, score=0.001, mask=0.01)
OWN_IMAGES = 4  # of the run's, where none are given


class Report(NamedTuple):
    """What was written and how it compares. ``rows``: an image's name, the size (height, width) in which the model
    sees it, its differences."""

    path: str
    about: Dict[str, Any]
    rows: List[Tuple[str, Tuple[int, int], Differences]]
    bounds: Bounds

    @property
    def agrees(self) -> bool:
        return all(each.within(self.bounds) for _, _, each in self.rows)


def export_run(
    folder: str,
    file_format: str,
    output: str = "",
    *,
    images: Sequence[str] = (),
    weights: str = "",
    device: str = "cpu",
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    bounds: Bounds = BOUNDS,
) -> Report:
    """Export the detector of a run, and compare the file with it.

    A file whose detections differ by more than the bounds does not get its name: it is kept as
    ``Report.path``, which then ends in ``.differs``.

    Args:
        folder, weights, overrides: as of ``Predictor.from_run``.
        file_format: one of ``FORMATS``.
        output: path of the file; empty: in the run's folder, named as the checkpoint.
        images: paths of the images that it is tried on; none: some of the run's own.
        device: that the detector is traced on, and a TorchScript file then runs on. ONNX files run anywhere.
        overwrite: replace an older file.

    Raises ``ConfigError`` for an unknown format or a detector that cannot be exported, ``InstallError`` where a library
    is missing, ``OutputError`` for a place that cannot be written to, ``DataError`` for images that cannot be read.
    """
    if file_format not in FORMATS:
        meant = did_you_mean(file_format, FORMATS)
        raise ConfigError(f"There is no format {file_format!r}, but {' and '.join(FORMATS)}.{meant}")
    kind = FORMATS[file_format]
    for library in kind.libraries:
        import_extra(library, "export")
    if file_format == "onnx" and device != "cpu":
        raise ConfigError("An ONNX file is not of a device: export it on the CPU, and choose when you run it.")
    if output:
        _check_place(output, kind.ending, overwrite)
    paths = list(images) or images_of_run(folder, OWN_IMAGES)
    check = functools.partial(check_exportable, file_format=file_format)
    predictor = Predictor.from_run(folder, weights, device=device, overrides=overrides, check=check)
    input_format(predictor)
    if not output:
        output = os.path.join(folder, os.path.splitext(os.path.basename(predictor.weights))[0] + kind.ending)
        _check_place(output, kind.ending, overwrite)
    inputs = _inputs(predictor, paths)
    image = inputs[0][1].to(predictor.model.device)
    unchecked = f"{output}.differs"
    kind.write(predictor.model, image, unchecked, lambda names: json.dumps(about(predictor, names)))
    report = _compare(predictor, unchecked, file_format, inputs, bounds)
    if report.agrees:
        os.replace(unchecked, output)
        report = report._replace(path=output)
    return report


def _check_place(path: str, ending: str, overwrite: bool) -> None:
    if not path.endswith(ending):
        raise OutputError(f"--output {path!r} has to end in {ending}.")
    if os.path.exists(path) and not overwrite:
        raise OutputError(f"--output {path!r} is there already: choose another name, or add --overwrite.")
    require_writable(os.path.dirname(os.path.abspath(path)))


def _inputs(predictor: Predictor, paths: Sequence[str]) -> List[Tuple[str, Tensor]]:
    """Names and images, resized for the model, of what is compared: the given ones, and two made of the first one.

    So there are always several sizes, and one image with little to find. (A plain one has places by the dozen that look
    the same to the last bit, and chance decides which of them is kept.)
    """
    inputs = [(os.path.basename(path), predictor.read(path)["image"].float()) for path in paths]
    first, mean = inputs[0][1], predictor.model.pixel_mean.cpu()
    height, width = (max(side * 5 // 7, 1) for side in first.shape[1:])
    part = first[:, -height:, :width].contiguous()
    pale = (mean + (first.transpose(1, 2) - mean) / 10).round().contiguous()
    return [*inputs, ("a part of the first", part), ("the first, turned and pale", pale)]


def _compare(predictor: Predictor, path: str, file_format: str, inputs, bounds: Bounds) -> Report:
    model, exported = predictor.model, ExportedDetector(path, file_format)
    limits = exported.about["score_threshold"], exported.about["max_objects"]
    rows = []
    for name, image in inputs:
        with torch.no_grad():
            reference = outputs_of(model, [{"image": image}])
        reference = {output: value.cpu() for output, value in reference.items()}
        rows.append((name, tuple(image.shape[1:]), differences(reference, exported.outputs(image), bounds, *limits)))
    return Report(path, exported.about, rows, bounds)
