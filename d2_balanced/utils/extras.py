"""Libraries that only some of the commands need, and that not everybody has."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import InstallError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, needed_by: str = "") -> ModuleType:
    """The module, or ``InstallError`` with the command that installs it.

    Args:
        extra: of this package, in setup.py.
        needed_by: the key or command that asks for it, for the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = f"{needed_by} needs {module}, which" if needed_by else module
        remedy = f"Install it: pip install 'd2_balanced[{extra}]'"
        raise InstallError(f"{what} cannot be imported ({error}). {remedy}") from error
