"""``python -m d2_balanced.doctor``: what is installed, what is wrong with it, and the exact fix for each fault.

Prints versions of Python, torch, torchvision, detectron2 (with the state of its compiled operators) and the smaller
packages. Ends with status 1 if something has to be fixed, with 0 otherwise.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

from . import compat

__all__ = ["diagnose", "main"]

PACKAGES = ("numpy", "scipy", "Pillow", "fvcore", "iopath", "yacs", "omegaconf", "pycocotools", "faster-coco-eval",
            "jinja2", "matplotlib", "tensorboard")

FIX_DETECTRON2 = (
    "`make install` in the checkout of d2_balanced (pure-Python 0.6), or the official one: "
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
)
FIX_REBUILD = (
    "build detectron2 again beside this torch: pip install --no-build-isolation --no-deps --force-reinstall "
    "'git+https://github.com/facebookresearch/detectron2.git'"
)
FIX_TORCH = (
    "`make install`, or take a pair that belongs together from https://pytorch.org/get-started/previous-versions"
)


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
    return rows, []


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
        return rows, [(f"detectron2 cannot be imported ({error})", _fix_for_import(error))]
    return rows, []


def _fix_for_import(error):
    if compat.has_compiled_ops() and not compat.is_main_branch():
        # A compiled 0.6 is left as it is: it needs the libraries of its time.
        return "pip install 'Pillow<10' 'numpy<1.24' (what detectron2 0.6 was made for), or install detectron2 main"
    return "install what the message names; `make install` makes an environment that is known to work"


def _check_packages():
    rows = [(package, _installed(package) or "missing") for package in PACKAGES]
    missing = [package for package, found in rows if found == "missing"]
    faults = [(f"missing: {', '.join(missing)}", "pip install " + " ".join(missing))] if missing else []
    return rows, faults


def diagnose():
    """Returns ``(rows, faults)``: ``[(what, version)]`` and ``[(fault, fix)]``, in the order in which to mend them."""
    rows, faults = [("Python", f"{sys.version.split()[0]} ({sys.executable})")], []
    for check in (_check_torch, _check_torchvision, _check_detectron2, _check_packages):
        found, wrong = check()
        rows += found
        faults += wrong
    return rows, faults


def main():
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
