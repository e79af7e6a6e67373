"""Which value may replace which: the types that a setting accepts, in yacs and in LazyConfig."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Optional

from .errors import ConfigError, shown
from .numbers import Extended, is_number, require_finite

__all__ = ["fit_argument", "fit_type", "require_finite_argument", "type_name"]

# A value of the type that an annotation names, for arguments whose defaults do not tell.
_EXAMPLES = {
    **{"bool": False, "int": 1, "float": 0.5, "str": ""},
    **{"List[int]": [1], "List[float]": [0.5], "Sequence[int]": [1], "Sequence[float]": [0.5]},
}


def _is_sequence(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def type_name(value) -> str:
    """How an error message calls the type of ``value``."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return "mapping"
    return type(value).__name__


def _fit_element(value, default):
    """An element of a sequence; int and float are the same here, as in [[32], [64.5]]."""
    if is_number(value) and is_number(default):
        return value
    return _fit(value, default)


def _fit(value, default):
    """``value`` as the type of ``default``; raises TypeError where that would lose or invent something."""
    if default is None or (isinstance(default, Mapping) and isinstance(value, Mapping)):
        return value
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
    elif isinstance(default, float) and is_number(value):
        return float(value)
    elif _is_sequence(default) and _is_sequence(value):
        elements = [_fit_element(element, default[0]) for element in value] if default else value
        return tuple(elements) if isinstance(default, tuple) else list(elements)
    elif isinstance(value, type(default)):
        return value
    raise TypeError


def fit_type(value, default, key: str, where: str = ""):
    """``value``, brought to the type of the setting's ``default`` (an int becomes a float, a list a tuple).

    A default of None accepts everything. Raises ``ConfigError`` with the key, the expected and the given type.
    """
    try:
        return _fit(value, default)
    except (TypeError, OverflowError):  # a whole number that no float holds
        one_number = _is_sequence(default) and is_number(value)
        hint = f"; a tuple of one element is written ({shown(value)},)" if one_number else ""
        raise ConfigError(
            f"{key}{where}: expected {type_name(default)}, like {default!r}, got {type_name(value)} {shown(value)}{hint}."
        ) from None


def fit_argument(value, parameter: Optional[inspect.Parameter], key: str, where: str = ""):
    """``value``, brought to the type of a constructor's ``parameter``: of its default, or else of its annotation.

    A parameter whose default is None takes None. Raises ``ConfigError`` for another type, and for numbers that are not
    finite (:func:`require_finite_argument`).
    """
    require_finite_argument(value, parameter, key, where)
    default = _default(parameter)
    if default is None and value is not None:
        default = _EXAMPLES.get(_annotated(parameter))
    return fit_type(value, default, key, where)


def require_finite_argument(value, parameter: Optional[inspect.Parameter], key: str, where: str = "") -> None:
    """Raise ``ConfigError`` for a ``value`` with a number that is not finite: so no component has to ask for that.

    It is taken where the parameter's default is such a number, or its annotation is ``Extended``.
    """
    if _annotated(parameter).rsplit(".", 1)[-1] != Extended.__name__:
        require_finite(value, key, _default(parameter), where)


def _default(parameter: Optional[inspect.Parameter]):
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _annotated(parameter: Optional[inspect.Parameter]) -> str:
    """The type in a parameter's annotation, without ``typing.`` and ``Optional``; empty if there is none."""
    annotation = inspect.Parameter.empty if parameter is None else parameter.annotation
    if annotation is inspect.Parameter.empty:
        return ""
    name = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    name = name.replace("typing.", "").replace("collections.abc.", "")
    return name[len("Optional[") : -1] if name.startswith("Optional[") else name
