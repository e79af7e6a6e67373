"""Modules of the user's own: those in ``IMPORTS`` of a yacs config, and what is wrong where an import fails."""

from __future__ import annotations

import contextlib
import importlib
import os
import traceback
from typing import Iterator, Sequence

from ..utils.errors import ConfigError, doing
from ..utils.moved import place_of_import, refuse_moved

__all__ = ["import_modules", "importing"]

_HINT = "Start from the folder that it is in with PYTHONPATH=. in front of the command, or install it."


def import_modules(names: Sequence[str]) -> None:
    """Import the modules ``names``, so that what they register can be named in the config (docs/OWN_COMPONENTS.md).

    They are looked for as Python does, not beside the config: a config does not say where code is taken from.
    Raises ``ConfigError`` with the name for what is no module name, and for what :func:`importing` refuses.
    """
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"IMPORTS: expected names of modules, as in `import my_components`, got {name!r}.")
        with importing("IMPORTS"):
            importlib.import_module(name)


@contextlib.contextmanager
def importing(key: str) -> Iterator[None]:
    """Around an import that a config asks for; ``key`` says where.

    Raises ``ConfigError`` with file and line where a module or a name in it is missing or was moved, or the syntax is
    wrong. What the imported code itself raises is its own bug, and keeps its traceback.
    """
    with doing(f"while importing what {key} asks for"):
        try:
            yield
        except ImportError as error:
            refuse_moved(error)
            missing = isinstance(error, ModuleNotFoundError) and error.name
            reason = f"{str(error).rstrip('.')}."
            if missing:
                reason = f"there is no module {error.name!r} on Python's path. {_HINT}"
            raise ConfigError(f"{key}: {place_of_import(error)}{reason}") from error
        except SyntaxError as error:
            cause = error.__cause__ or error  # detectron2 names the file, and has the rest in the cause
            file = error.filename or error.msg
            raise ConfigError(f"{key}: {file}, line {cause.lineno}: {cause.msg}.") from error
        except KeyError as error:
            # detectron2 looks up in the config file's names what another config file imports of it.
            if not traceback.extract_tb(error.__traceback__)[-1].filename.endswith(os.path.join("config", "lazy.py")):
                raise
            raise ConfigError(f"{key}: {place_of_import(error)}there is no {error} in that file.") from error
