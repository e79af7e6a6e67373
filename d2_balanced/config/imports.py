"""``IMPORTS`` of a yacs config: modules of one's own, whose components the config names (docs/OWN_COMPONENTS.md)."""

from __future__ import annotations

import importlib
from typing import Sequence

from ..utils.errors import ConfigError
from ..utils.moved import refuse_moved

__all__ = ["import_modules"]


def import_modules(names: Sequence[str]) -> None:
    """Import the modules ``names``, so that what they register can be named in the config.

    They are looked for as Python does, not beside the config: a config does not say where code is taken from.
    Raises ``ConfigError`` with the name for what is no module name, is not found, or raises when it is imported.
    """
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"IMPORTS: expected names of modules, as in `import my_components`, got {name!r}.")
        try:
            importlib.import_module(name)
        except ImportError as error:
            refuse_moved(error)
            if not isinstance(error, ModuleNotFoundError) or not f"{name}.".startswith(f"{error.name}."):
                raise _failed(name, error) from error
            raise ConfigError(
                f"IMPORTS: there is no module {name!r} on Python's path. Start from the folder that it is in with "
                "PYTHONPATH=. in front of the command, or install it."
            ) from error
        except Exception as error:  # whatever the module raises
            raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"IMPORTS: importing {name!r} failed: {type(error).__name__}: {error}")
