"""Which value may replace which: the types that a setting accepts, in yacs and in LazyConfig."""

from collections.abc import Mapping, Sequence
from numbers import Number

from .errors import ConfigError

__all__ = ["check_minimum", "fit_type", "type_name"]


def _is_sequence(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_number(value) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def type_name(value) -> str:
    """How an error message calls the type of ``value``."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return "mapping"
    return type(value).__name__


def _fit_element(value, default):
    """An element of a sequence; int and float are the same here, as in [[32], [64.5]]."""
    if _is_number(value) and _is_number(default):
        return value
    return _fit(value, default)


def _fit(value, default):
    """``value`` as the type of ``default``; raises TypeError where that would lose or invent something."""
    if default is None or (isinstance(default, Mapping) and isinstance(value, Mapping)):
        return value
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
    elif isinstance(default, float) and _is_number(value):
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
    except TypeError:
        one_number = _is_sequence(default) and _is_number(value)
        hint = f"; a tuple of one element is written ({value!r},)" if one_number else ""
        raise ConfigError(
            f"{key}{where}: expected {type_name(default)}, like {default!r}, got {type_name(value)} {value!r}{hint}."
        ) from None


def check_minimum(values: Mapping, minimum: Mapping, where: str = "") -> None:
    """Raise ``ConfigError`` for the first of ``{key: value}`` that is a number below ``{key: minimum}``."""
    for key, value in values.items():
        if _is_number(value) and value < minimum[key]:
            raise ConfigError(f"{key}{where}: must be {minimum[key]} or more, got {value!r}.")
