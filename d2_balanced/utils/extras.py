"""Libraries that only some of the commands need, and that not everybody has."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import InstallError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str) -> ModuleType:
    """The module, or ``InstallError`` with the command that installs it; ``extra``: of this package, in setup.py."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"Install it: pip install 'd2_balanced[{extra}]'"
        raise InstallError(f"{module} cannot be imported ({error}). {remedy}") from error
