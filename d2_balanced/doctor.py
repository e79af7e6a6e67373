"""``python -m d2_balanced.doctor``: what is installed, what is wrong with it, and the exact fix for each fault.

Prints versions of Python, torch, torchvision, detectron2 (with the state of its compiled operators) and the smaller
packages, each of which is imported, and at last what training imports. Ends with status 1 if something has to be fixed,
with 0 otherwise.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

from . import compat
from .arguments.doctor import argument_parser
from .utils.command import command

__all__ = ["diagnose", "main"]

PACKAGES = {  # what is imported of each: where its compiled parts and the versions that it needs show
    "numpy": "numpy",
    "scipy": "scipy.optimize",
    "Pillow": "PIL.Image",
    "fvcore": "fvcore.common.checkpoint",
    "iopath": "iopath.common.file_io",
    "yacs": "yacs.config",
    "omegaconf": "omegaconf",
    "pycocotools": "pycocotools.mask",
    "faster-coco-eval": "faster_coco_eval",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib.pyplot",
    "tensorboard": "torch.utils.tensorboard",
}

_BUILD = (
    "pip install 'setuptools<81' wheel, then pip install --use-pep517 --no-build-isolation {options}"
    "'git+https://github.com/facebookresearch/detectron2.git'"
)
FIX_DETECTRON2 = (
    "`make install` in the checkout of d2_balanced (pure-Python 0.6), or the official one, which is compiled: "
    + _BUILD.format(options="")
)
FIX_REBUILD = "build detectron2 again beside this torch: " + _BUILD.format(options="--no-deps --force-reinstall ")
FIX_TORCH = (
    "`make install`, or take a pair that belongs together from https://pytorch.org/get-started/previous-versions"
)
FIX_IMPORT = "install what the message names; `make install VENV=folder` makes an environment that is known to work"


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _import_error(module):
    """What importing ``module`` raises, as text; "" if nothing."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever it is, the report has to go on
        return f"{type(error).__name__}: {error}"
    return ""


def _check_torch():
    if error := _import_error("torch"):
        return [("torch", "cannot be imported")], [(f"torch: {error}", FIX_TORCH)]
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = f"{gpus} GPU(s), {torch.cuda.get_device_name(0)}" if gpus else "no GPU: training runs on the CPU"
    rows = [("torch", f"{torch.__version__} (CUDA {torch.version.cuda}; {device})")]
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 0):
        return rows, [(f"torch {torch.__version__} is older than 2.0", FIX_TORCH)]
    return rows, _faults_with_numpy(torch)


def _faults_with_numpy(torch):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.zeros(1).numpy()
    except RuntimeError as error:  # torch before 2.3 is built for NumPy 1
        return [(f"torch {torch.__version__} cannot use this NumPy ({error})", "pip install 'numpy<2'")]
    return []


def _check_torchvision():
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:  # an ABI mismatch shows as one of several types
        fault = f"torchvision does not work with this torch ({type(error).__name__}: {error})"
        return [("torchvision", _installed("torchvision") or "missing")], [(fault, FIX_TORCH)]
    return [("torchvision", torchvision.__version__)], []


def _detectron2_kind():
    branch = "main" if compat.is_main_branch() else "0.6"
    ops = "compiled operators" if compat.has_compiled_ops() else "no compiled operators: no rotated boxes"
    return f"{branch}, {ops}, in {compat.find_detectron2()[0]}"


def _check_detectron2():
    try:
        rows = [("detectron2", _detectron2_kind())]
        compat.prepare()
    except ImportError as error:
        return [("detectron2", "missing")], [(str(error), FIX_DETECTRON2)]
    if compat.has_compiled_ops() and (error := _import_error("detectron2._C")):
        return rows, [(f"detectron2's compiled operators do not load beside this torch ({error})", FIX_REBUILD)]
    if error := _import_error("detectron2.data"):
        return rows, [(f"detectron2 cannot be imported ({error})", FIX_IMPORT)]
    return rows, []


def _check_packages():
    rows = [(package, _installed(package) or "missing") for package in PACKAGES]
    missing = [package for package, found in rows if found == "missing"]
    faults = [(f"missing: {', '.join(missing)}", "pip install " + " ".join(missing))] if missing else []
    errors = {package: _import_error(module) for package, module in PACKAGES.items() if package not in missing}
    broken = [package for package, error in errors.items() if error]
    if broken:
        fault = "; ".join(f"{package} cannot be imported ({errors[package]})" for package in broken)
        again = " ".join(dict.fromkeys(["numpy", *broken]))  # what was built for another NumPy says so in many ways
        faults.append((fault, f"pip install --upgrade --force-reinstall --no-deps {again}"))
    return rows, faults


def _check_training():
    """What all the rest is for; a fault that no check before it has found."""
    error = _import_error("d2_balanced.engine.run")
    return [(f"training cannot be started ({error})", FIX_IMPORT)] if error else []


def diagnose():
    """Returns ``(rows, faults)``: ``[(what, version)]`` and ``[(fault, fix)]``, in the order in which to mend them."""
    rows, faults = [("Python", f"{sys.version.split()[0]} ({sys.executable})")], []
    for check in (_check_torch, _check_torchvision, _check_detectron2, _check_packages):
        found, wrong = check()
        rows += found
        faults += wrong
    return rows, faults or _check_training()


@command("python -m d2_balanced.doctor")
def main(argv=None):
    argument_parser().parse_args(argv)
    rows, faults = diagnose()
    width = max(len(what) for what, _ in rows)
    for what, found in rows:
        print(f"{what:<{width}}  {found}")
    for fault, fix in faults:
        print(f"\nFAULT: {fault}\n  fix: {fix}")
    if not faults:
        print("Everything that d2_balanced needs is here.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
