"""What a trained detector costs, beside plain detectron2 and exported files.

    d2_balanced benchmark --run output/mine --exported output/mine/model_best.onnx
"""

from __future__ import annotations

import functools
import json
import os
import platform
from typing import Any, Dict, List, Sequence, Tuple

import detectron2
import torch
from tabulate import tabulate
from torch import nn

from ...arguments.benchmark import argument_parser
from ...utils.atomic import atomic_write
from ...utils.command import command
from ...utils.output_folder import require_writable
from ..export.exported import ExportedDetector
from ..images import find_images
from ..images_of_run import images_of_run
from ..predictor import Predictor
from .measure import DETECTOR, PLAIN, count_operations, memory_of, summary, time_detectors
from .plain import plain_detectron2

__all__ = ["main"]

FILE = "benchmark.json"
_OWN_IMAGES = 8
_HEADERS = ("", "p50 ms", "p95 ms", "images/s", "ratio (quartiles)", "peak MiB", "parameters", "GFLOPs")


@command("python -m d2_balanced.inference.benchmark")
def main(argv=None) -> None:
    """The command at the top of this module: prints the table, and writes JSON."""
    args = argument_parser().parse_args(argv)
    output = args.output or os.path.join(args.run, FILE)
    if args.threads:
        torch.set_num_threads(args.threads)
    paths = find_images(args.images, "--images") or images_of_run(args.run, _OWN_IMAGES)
    open_run = functools.partial(Predictor.from_run, args.run, args.weights, device=args.device, overrides=args.opts)
    predictor = open_run()
    require_writable(os.path.dirname(os.path.abspath(output)))  # not before, or a run that is not there gets a folder
    inputs = [predictor.read(path) for path in paths]
    detectors, note = _detectors(predictor, inputs, args.exported)
    device = str(predictor.model.device)
    seconds = time_detectors(detectors, inputs, args.rounds, device)
    variants = {name: summary(times, seconds[DETECTOR]) for name, times in seconds.items()}
    for name in detectors.keys() & {DETECTOR, PLAIN}:
        variants[name].update(_size(detectors[name], inputs))
    if args.memory:
        for name, peak in memory_of(list(detectors), open_run, inputs, torch.get_num_threads()).items():
            variants[name]["peak_bytes"] = peak
    about = {"images": len(paths), "rounds": args.rounds, "weights": predictor.weights, **_environment(device)}
    with atomic_write(output, "w") as file:
        json.dump({**about, "detectron2_left_out": note, "variants": variants}, file, indent=1)
    _tell(about, note, variants, output)


def _detectors(predictor: Predictor, inputs: Sequence, exported: Sequence[str]) -> Tuple[Dict[str, nn.Module], str]:
    """What is timed, by name, and why plain detectron2 is not among it."""
    plain, note = plain_detectron2(predictor.model, inputs[:1])
    files = {path: ExportedDetector(path) for path in exported}
    return {DETECTOR: predictor.model, **({PLAIN: plain} if plain is not None else {}), **files}, note


def _size(model: nn.Module, inputs: Sequence[Dict[str, Any]]) -> Dict[str, float]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "gflops": count_operations(model, inputs[:1])}


def _environment(device: str) -> Dict[str, Any]:
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"
    return {
        "device": device, "hardware": hardware, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "detectron2": detectron2.__version__,
    }  # fmt: skip


def _tell(about: Dict[str, Any], note: str, variants: Dict[str, Dict[str, Any]], output: str) -> None:
    print(
        f"{about['images']} image(s), {about['rounds']} rounds, one image at a time; {about['hardware']}, "
        f"{about['threads']} thread(s); torch {about['torch']}"
    )
    rows = [_row(name, each) for name, each in variants.items()]
    print(tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True))
    if note:
        print(f"Without plain detectron2: {note}.")
    print(output)


def _row(name: str, each: Dict[str, Any]) -> List[str]:
    low, high = each["ratio_quartiles"]
    return [
        os.path.basename(name),
        f"{each['p50_ms']:.1f}",
        f"{each['p95_ms']:.1f}",
        f"{each['images_per_s']:.1f}",
        f"{each['ratio']:.3f} ({low:.3f} - {high:.3f})",
        f"{each['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in each else "",
        f"{each['parameters']:,}" if "parameters" in each else "",
        f"{each['gflops']:.2f}" if "gflops" in each else "",
    ]
