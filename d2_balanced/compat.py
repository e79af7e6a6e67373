"""Makes detectron2 0.6, compiled or pure Python, importable on current torch, NumPy and Pillow.

Importing ``d2_balanced`` calls :func:`prepare`. Where detectron2 is 0.6, it sets, each only where it is missing:

- ``PIL.Image.LINEAR``, which Pillow 10 removed;
- ``np.bool``, ``np.int``, ``np.float``, ``np.object`` and ``np.str``, which NumPy 1.24 removed (NumPy 2 has its own
  ``bool``);
- an empty ``detectron2.export.api`` where there is no caffe2, which torch no longer has: with it
  ``detectron2.export`` is what main's is without caffe2 (``TracingAdapter``, ``scripting_with_instances``);
- without compiled operators, a stand-in for ``detectron2._C``, whose operators raise a clear error when they are called
  (deformable convolutions need none: ``modeling/backbone/deform_conv.py``), and pycocotools' evaluation in the place of
  the compiled one, as in detectron2 main, so that ``COCOEvaluator`` works as it is.

On detectron2 main nothing is patched. Which of the three is installed is read from the files of the package, so
neither detectron2 nor torch is imported here.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
import warnings
from importlib.machinery import PathFinder

__all__ = ["DETECTRON2_MISSING", "find_detectron2", "has_compiled_ops", "has_cuda_ops", "is_main_branch", "prepare"]

DETECTRON2_MISSING = (
    "d2_balanced needs detectron2, which is not installed in this environment ({python}). "
    "Run `make install` in the d2_balanced checkout (it installs a pure-Python detectron2 0.6), "
    "or install the official detectron2 here."
)

_NUMPY_ALIASES = {"bool": bool, "int": int, "float": float, "object": object, "str": str}


def find_detectron2():
    """Folders of the installed detectron2 package (a list); raises ``ImportError`` if there is none."""
    loaded = sys.modules.get("detectron2")
    if loaded is not None:
        return list(loaded.__path__)
    spec = importlib.util.find_spec("detectron2")
    # A spec without an origin is a folder that merely has that name (a namespace package).
    if spec is None or spec.origin is None:
        raise ImportError(DETECTRON2_MISSING.format(python=sys.executable))
    return list(spec.submodule_search_locations)


def has_compiled_ops():
    """Whether this detectron2 has its compiled operators (rotated boxes, deformable convolutions on CUDA)."""
    return PathFinder.find_spec("detectron2._C", find_detectron2()) is not None


@functools.lru_cache(maxsize=None)
def has_cuda_ops():
    """Whether the compiled operators are there and were built for CUDA."""
    if not has_compiled_ops():
        return False
    from detectron2 import _C

    return _C.has_cuda()


def is_main_branch():
    """Whether this detectron2 is newer than 0.6. Main calls itself 0.6, too: a module that only main has decides."""
    utils = PathFinder.find_spec("detectron2.utils", find_detectron2())
    return PathFinder.find_spec("detectron2.utils.tracing", utils.submodule_search_locations) is not None


def _stand_in_for_compiled_ops():
    """A module that imports like ``detectron2._C`` and whose every operator raises a clear error."""
    module = types.ModuleType("detectron2._C", "Stand-in made by d2_balanced.compat: no compiled operators here.")

    def missing_operator(name):
        if name.startswith("__"):  # inspect, copy and pickle probe modules for these
            raise AttributeError(name)

        def operator(*args, **kwargs):
            raise RuntimeError(
                f"detectron2._C.{name} is a compiled operator, and this detectron2 was installed without them. "
                "Rotated boxes need the official detectron2, built from source."
            )

        return operator

    module.__getattr__ = missing_operator
    # detectron2's report on the environment, which every training run logs, asks for these three.
    module.get_compiler_version = lambda: "none (pure-Python detectron2)"
    module.get_cuda_version = lambda: "none (pure-Python detectron2)"
    module.has_cuda = lambda: False
    return module


def _stand_in_for_fast_evaluation():
    """A module that imports like ``detectron2.evaluation.fast_eval_api``; its ``COCOeval_opt`` is pycocotools' class."""
    module = types.ModuleType("detectron2.evaluation.fast_eval_api", "Stand-in made by d2_balanced.compat: pycocotools.")

    def look_up(name):
        if name != "COCOeval_opt":
            raise AttributeError(name)
        from pycocotools.cocoeval import COCOeval

        return COCOeval

    module.__getattr__ = look_up
    return module


def _restore_removed_names():
    import numpy as np
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both libraries warn when a name that they are about to remove is looked at
        if not hasattr(Image, "LINEAR"):
            Image.LINEAR = Image.BILINEAR
        for name, builtin in _NUMPY_ALIASES.items():
            if not hasattr(np, name):
                setattr(np, name, builtin)


def _has_caffe2():
    """Whether caffe2's compiled module is there; many versions of torch bring caffe2's Python files without it."""
    folders = None
    for name in ("caffe2", "caffe2.python", "caffe2.python.caffe2_pybind11_state"):
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return False
        folders = spec.submodule_search_locations
    return True


def prepare():
    """Apply the patches listed at the top of this module, where they are needed. Calling it twice is harmless.

    Raises ``ImportError`` with the command to run if detectron2 is missing.
    """
    if is_main_branch():
        return
    if not has_compiled_ops() and "detectron2._C" not in sys.modules:
        sys.modules["detectron2._C"] = _stand_in_for_compiled_ops()
        sys.modules["detectron2.evaluation.fast_eval_api"] = _stand_in_for_fast_evaluation()
    if not _has_caffe2():
        no_caffe2 = types.ModuleType("detectron2.export.api", "Stand-in made by d2_balanced.compat: no caffe2 here.")
        sys.modules.setdefault("detectron2.export.api", no_caffe2)
    _restore_removed_names()
