"""ONNX files, run by onnxruntime; torch is not imported."""

from .errors import CheckpointError, usage
from .extras import import_extra

__all__ = ["open_session", "run_images"]


def open_session(path, threads=1):
    """onnxruntime's session of the file, on the CPU, with so many threads.

    Raises ``InstallError`` without onnxruntime, and ``CheckpointError`` for a file that is no ONNX.
    """
    onnxruntime = import_extra("onnxruntime", "export")
    wrong = import_extra("onnxruntime.capi.onnxruntime_pybind11_state", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    kinds = (wrong.Fail, wrong.InvalidGraph, wrong.InvalidProtobuf)
    with usage(f"{path!r} is no ONNX file", *kinds, error=CheckpointError):
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_images(path, images, threads=1):
    """The file's outputs for each of the arrays, one after the other."""
    session = open_session(path, threads)
    return [session.run(None, {"image": image}) for image in images]
