"""Time, memory, parameters and operations of detectors that get the same images.

One image at a time, read and resized before; the time is that of the detector and of what makes its detections those of
the image file (boxes in its pixels, masks pasted).
"""

from __future__ import annotations

import functools
import statistics
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from detectron2.utils.analysis import FlopCountAnalysis
from torch import nn

from ...utils.interleave import peak_memory, quartiles, ratios, time_interleaved
from ...utils.onnx_session import run_images
from ..export.exported import ExportedDetector
from ..predictor import Predictor
from .plain import plain_detectron2

__all__ = ["DETECTOR", "PLAIN", "count_operations", "memory_of", "summary", "time_detectors"]

DETECTOR, PLAIN = "detector", "detectron2"


def time_detectors(
    detectors: Dict[str, nn.Module], inputs: Sequence[Dict[str, Any]], rounds: int, device: str
) -> Dict[str, List[float]]:
    """Seconds of each detector for each image, ``rounds`` times; they take turns (``utils/interleave.py``)."""
    seconds: Dict[str, List[float]] = {name: [] for name in detectors}
    for each in inputs:
        variants = {name: functools.partial(_detect, model, each) for name, model in detectors.items()}
        for name, times in time_interleaved(variants, rounds, device).items():
            seconds[name] += times
    return seconds


@torch.no_grad()
def _detect(model: nn.Module, each: Dict[str, Any]) -> None:
    model([each])[0]["instances"].to("cpu")


def summary(times: List[float], references: List[float]) -> Dict[str, Any]:
    """What a table says of seconds: percentiles in milliseconds, images a second, the ratio to the reference."""
    p50, p95 = (1000 * float(np.percentile(times, percent)) for percent in (50, 95))
    low, middle, high = quartiles(ratios(times, references))
    return {
        "p50_ms": p50, "p95_ms": p95, "images_per_s": 1 / statistics.fmean(times),
        "ratio": middle, "ratio_quartiles": [low, high],
    }  # fmt: skip


def count_operations(model: nn.Module, inputs: Sequence[Dict[str, Any]]) -> float:
    """Mean over the images of fvcore's count, 10^9 multiply-adds: convolutions, matrix products, normalisation."""
    counts = []
    for each in inputs:
        analysis = FlopCountAnalysis(model, [{"image": each["image"]}])
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counts.append(analysis.total() / 1e9)
    return statistics.fmean(counts)


def memory_of(
    names: Sequence[str], open_run: Callable[[], Predictor], inputs: Sequence[Dict[str, Any]], threads: int
) -> Dict[str, int]:
    """Peak memory in bytes of each variant, in a process of its own that opens it and runs it on the images once.

    Args:
        names: ``DETECTOR``, ``PLAIN``, or paths of exported files.
        open_run: gives the predictor of the run; importable.
    """
    images = [each["image"].float().numpy() for each in inputs]
    functions: Dict[str, Callable] = {}
    for name in names:
        if name in (DETECTOR, PLAIN):
            functions[name] = functools.partial(_run_detector, open_run, name == PLAIN, images, threads)
        elif name.endswith(".onnx"):
            functions[name] = functools.partial(run_images, name, images, threads)
        else:
            functions[name] = functools.partial(_run_file, name, images, threads)
    return peak_memory(functions)


def _run_detector(open_run, plain: bool, images, threads: int) -> None:
    torch.set_num_threads(threads)
    model: Optional[nn.Module] = open_run().model
    if plain:
        model, _ = plain_detectron2(model, _inputs(images)[:1])
    for each in _inputs(images):
        _detect(model, each)


def _run_file(path: str, images, threads: int) -> None:
    torch.set_num_threads(threads)
    exported = ExportedDetector(path)
    for each in _inputs(images):
        _detect(exported, each)


def _inputs(images) -> List[Dict[str, Any]]:
    return [{"image": torch.as_tensor(x), "height": x.shape[1], "width": x.shape[2]} for x in images]
