"""The two kinds of files: how a detector is written to one.

Each has its ``write(model, image, path, describe)``: the detector is traced on ``image``, a float tensor (3, H, W) on
the model's device, and ``describe(names of the outputs)`` is the metadata, JSON text. The file is written whole or not
at all.
"""

from __future__ import annotations

import inspect
import io
from typing import Callable, Dict, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from ...utils.atomic import atomic_write
from .about import KEY
from .nms import onnx_nms, torchscript_nms
from .tracing import adapter_of, traceable

__all__ = ["BY_TRACING", "FORMATS", "OPSET", "Format"]

OPSET = 16  # the first whose RoiAlign has half pixels (detectron2's ROIAlignV2)

# torch's newer exporter needs torch.export, which stops at branches of detectron2 that depend on values.
BY_TRACING = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


class Format(NamedTuple):
    ending: str
    write: Callable[[nn.Module, Tensor, str, Callable], None]
    libraries: Tuple[str, ...] = ()
    """Of the package's extra "export"."""


def _write_torchscript(model: nn.Module, image: Tensor, path: str, describe: Callable) -> None:
    adapter = adapter_of(model, image)
    with traceable(model, torchscript_nms):
        # Not checked on the same image again: the file is compared with the detector on several images later.
        traced = torch.jit.trace(adapter, (image,), check_trace=False)
    content = io.BytesIO()
    torch.jit.save(traced, content, _extra_files={KEY: describe(adapter.outputs_schema.keys)})
    with atomic_write(path, size=content.tell()) as file:
        file.write(content.getvalue())


def _write_onnx(model: nn.Module, image: Tensor, path: str, describe: Callable) -> None:
    import onnx

    adapter, content = adapter_of(model, image), io.BytesIO()
    with traceable(model, onnx_nms):
        adapter(image)
        names = adapter.outputs_schema.keys
        torch.onnx.export(
            adapter, (image,), content, opset_version=OPSET, input_names=["image"], output_names=names,
            dynamic_axes={"image": {1: "height", 2: "width"}, **{name: {0: "objects"} for name in names}}, **BY_TRACING,
        )  # fmt: skip
    graph = onnx.load_from_string(content.getvalue())
    onnx.helper.set_model_props(graph, {KEY: describe(names)})
    onnx.checker.check_model(graph)
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())


FORMATS: Dict[str, Format] = {
    "onnx": Format(".onnx", _write_onnx, ("onnx", "onnxruntime")),
    "torchscript": Format(".ts", _write_torchscript),
}
