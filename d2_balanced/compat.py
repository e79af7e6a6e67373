"""Makes a pure-Python detectron2 0.6 importable on current torch, NumPy and Pillow.

Importing ``d2_balanced`` calls :func:`prepare` before detectron2 is imported for the first time. What it
does is limited to what detectron2 0.6 needs and the environment lacks:

- a stand-in for the compiled ``detectron2._C``, whose operators raise a clear error when they are called;
- ``PIL.Image.LINEAR``, which Pillow 10 removed;
- ``np.bool``, ``np.int``, ``np.float`` and ``np.object``, which NumPy 1.24 removed.

On a compiled detectron2, or on detectron2 main, nothing at all is patched.
"""

import importlib.metadata
import importlib.util
import sys
import types
import warnings

__all__ = ["DETECTRON2_MISSING", "prepare", "has_compiled_ops", "detectron2_version"]

DETECTRON2_MISSING = (
    "d2_balanced needs detectron2, which is not installed in this environment. Run `make install` in the "
    "d2_balanced checkout (it installs a pure-Python detectron2 0.6), or install the official detectron2."
)

_NUMPY_ALIASES = {"bool": bool, "int": int, "float": float, "object": object}


def detectron2_version():
    """Version of the installed detectron2 as a string; raises ``ImportError`` if there is none.

    Does not run detectron2's own modules beyond its ``__init__`` (which only sets the version).
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(DETECTRON2_MISSING)
    import detectron2

    return str(getattr(detectron2, "__version__", "unknown"))


def has_compiled_ops():
    """Whether this detectron2 has its compiled operators (deformable convolution, rotated boxes)."""
    module = sys.modules.get("detectron2._C")
    if module is not None:
        return not getattr(module, "is_stand_in", False)
    return importlib.util.find_spec("detectron2._C") is not None


def _stand_in_for_compiled_ops():
    """A module that imports like ``detectron2._C`` and whose every operator raises a clear error."""
    module = types.ModuleType("detectron2._C", "Stand-in made by d2_balanced.compat: no compiled operators here.")
    module.is_stand_in = True

    def missing_attribute(name):
        if name.startswith("__"):  # keeps inspect, copy and pickle working on the module
            raise AttributeError(name)

        def operator(*args, **kwargs):
            raise RuntimeError(
                f"detectron2._C.{name} is a compiled operator, and this detectron2 was installed without them. "
                "Deformable convolutions and rotated boxes need the official detectron2, built from source."
            )

        return operator

    module.__getattr__ = missing_attribute
    return module


def _main_branch_needs_no_patch(version):
    # Main and 0.6 share the version string "0.6"; `detectron2.utils.tracing` exists in main only.
    return version != "0.6" or importlib.util.find_spec("detectron2.utils.tracing") is not None


def prepare():
    """Apply the patches listed at the top of this module, where they are needed. Calling it twice is harmless.

    Raises ``ImportError`` with the install command if detectron2 is missing.
    """
    version = detectron2_version()
    if has_compiled_ops() or "detectron2._C" in sys.modules:
        compiled = True
    else:
        compiled = False
        sys.modules["detectron2._C"] = _stand_in_for_compiled_ops()
        sys.modules["detectron2"]._C = sys.modules["detectron2._C"]
    if _main_branch_needs_no_patch(version):
        return
    del compiled
    import numpy as np
    from PIL import Image

    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 1.20 to 1.23 warn when the aliases are looked at
        for name, builtin in _NUMPY_ALIASES.items():
            if not hasattr(np, name):
                setattr(np, name, builtin)
