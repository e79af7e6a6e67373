"""An exported file as a detector in detectron2's form: list of dicts in, list of ``{"instances": ...}`` out.

    found = Predictor(ExportedDetector("model.onnx"), mapper, class_names)("photo.jpg")
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ...utils.errors import CheckpointError, usage
from ...utils.onnx_session import open_session
from .about import KEY
from .tracing import OUTPUTS

__all__ = ["ExportedDetector"]


class ExportedDetector(nn.Module):
    """Runs a file of ``d2_balanced export``, one image after the other, with as many threads as torch.

    Args:
        path: the file.
        file_format: "onnx" or "torchscript"; empty: ONNX where the name ends in ``.onnx``.

    Attributes:
        about: what the file says about itself (``about.py``).

    Raises ``CheckpointError`` for a file that is not there or is none of these, ``InstallError`` without onnxruntime.
    """

    def __init__(self, path: str, file_format: str = ""):
        super().__init__()
        if not os.path.isfile(path):
            raise CheckpointError(f"There is no exported file {path!r}.")
        self.path = path
        is_onnx = file_format == "onnx" or not file_format and path.endswith(".onnx")
        self._run, text = (_open_onnx if is_onnx else _open_torchscript)(path)
        if not text:
            raise CheckpointError(f"{path!r} was not written by d2_balanced export: it does not say what it is.")
        self.about: Dict[str, Any] = json.loads(text)

    def forward(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Instances]]:
        """For each of detectron2's inputs its detections on the CPU, in pixels of ``height`` and ``width``."""
        return [{"instances": self._detect(**each)} for each in inputs]

    def outputs(self, image: Tensor) -> Dict[str, Tensor]:
        """What the file gives for an image (3, H, W), see :func:`.tracing.outputs_of`, on the CPU."""
        return dict(zip(self.about["outputs"], (torch.as_tensor(value).cpu() for value in self._run(image.float()))))

    def _detect(self, image: Tensor, height: int, width: int, **more) -> Instances:
        outputs = self.outputs(image)
        found = Instances(tuple(image.shape[1:]), pred_boxes=Boxes(outputs.pop("boxes")))
        for name, value in outputs.items():
            found.set(OUTPUTS[name], value[:, None] if name == "masks" else value)
        return detector_postprocess(found, height, width)


def _open_onnx(path: str):
    session = open_session(path, torch.get_num_threads())
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return lambda image: session.run(None, {"image": image.numpy()}), text


def _open_torchscript(path: str):
    files = {KEY: ""}
    with usage(f"{path!r} is no TorchScript file", RuntimeError, error=CheckpointError):
        module = torch.jit.load(path, map_location="cpu", _extra_files=files)
    device = json.loads(files[KEY] or "{}").get("device", "cpu")
    module = module.to(device)

    def run(image: Tensor):
        with torch.no_grad():
            return module(image.to(device))

    return run, files[KEY]
