"""Spec nodes: a component chosen in yacs by ``{NAME: <registered name>, <ARGUMENT>: value, ...}``.

The arguments are the constructor's own, in capitals; their defaults live in the constructor alone.
"""

from __future__ import annotations

import inspect
from typing import Any, Dict, Mapping

from ..utils.constructing import constructing
from ..utils.errors import ConfigError, did_you_mean
from ..utils.values import fit_argument

__all__ = ["build_component", "call_arguments", "check_spec", "missing_arguments", "signature_parameters", "registered_names"]


def registered_names(registry) -> list:
    """All names in a detectron2 ``Registry``, sorted."""
    return sorted(name for name, _ in registry)


def signature_parameters(target) -> Dict[str, inspect.Parameter]:
    """The keyword parameters of a class or function, by name.

    A class that forwards ``**kwargs`` also takes what the next class's constructor takes, and needs of that what it
    does not name itself, as detectron2's ``FCOSHead`` names ``num_anchors=1``. The ``**kwargs`` parameter itself is in
    the result, under its name, only where its keywords cannot be known.
    """
    parameters = dict(inspect.signature(target).parameters)
    open_ended = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    if open_ended and inspect.isclass(target):
        for base in target.__mro__[1:]:
            if "__init__" in vars(base) and base is not object:
                del parameters[open_ended[0]]
                return {**_optional(signature_parameters(base), target.__init__), **parameters}
    return {name: p for name, p in parameters.items() if p.kind is not p.VAR_POSITIONAL}


def _optional(parameters, init) -> Dict[str, inspect.Parameter]:
    """``parameters`` with a default for those that the code of ``init`` names: it passes them on."""
    code = getattr(inspect.unwrap(init), "__code__", None)
    constants = code.co_consts if code else ()
    named = {name for each in constants for name in (each if isinstance(each, tuple) else (each,))}
    return {n: p.replace(default=None) if p.default is p.empty and n in named else p for n, p in parameters.items()}


def is_open_ended(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether any keyword is accepted (``**kwargs`` of a function)."""
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def missing_arguments(parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> list:
    """Names of the ``parameters`` that have no default and are not ``given``."""
    return [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and name not in given
    ]


def check_spec(registry, node: Mapping[str, Any], key: str):
    """The registered class or function of a spec node and its arguments ``(target, {argument: value})``.

    Raises ``ConfigError`` for an unknown ``NAME``, an unknown argument, or a value of another type than the default's.
    """
    name = node.get("NAME", "")
    known = registered_names(registry)
    if name not in known:
        raise ConfigError(
            f"{key}.NAME: no {registry._name} is called {name!r}; registered are {', '.join(known) or 'none'}."
            + did_you_mean(str(name), known)
        )
    target = registry.get(name)
    arguments = {given: value for given, value in node.items() if given != "NAME"}
    return target, call_arguments(target, arguments, key)


def call_arguments(target, settings: Mapping[str, Any], key: str, taken=()) -> Dict[str, Any]:
    """``{argument: value}`` for a call of ``target`` from ``{ARGUMENT: value}``, checked against its signature.

    Args:
        key: the full name of the mapping in the config, for error messages.
        taken: arguments that do not come from the config.

    Raises ``ConfigError`` for an argument that ``target`` does not have, and for a value of another type than its default
    or annotation has, or that is not finite (``fit_argument``).
    """
    parameters = {name: p for name, p in signature_parameters(target).items() if name not in taken}
    arguments = {}
    for given, value in settings.items():
        argument = str(given).lower()
        if argument not in parameters and not is_open_ended(parameters):
            allowed = [p.upper() for p in parameters]
            raise ConfigError(
                f"{key}.{given}: {target.__name__} has no argument {argument!r}; its arguments are "
                f"{', '.join(allowed) or 'none'}." + did_you_mean(str(given), allowed)
            )
        arguments[argument] = fit_argument(value, parameters.get(argument), f"{key}.{given}")
    return arguments


def build_component(registry, node: Mapping[str, Any], key: str, **context):
    """Build the component that a spec node describes, or None where ``NAME`` is empty.

    Args:
        registry: the detectron2 ``Registry`` that holds ``NAME``.
        node: ``{NAME: str, <ARGUMENT>: value, ...}``.
        key: the full name of the node in the config, for error messages.
        context: values that come from detectron2's own keys; those that the constructor takes are passed to it.
            A spec node cannot set them, because detectron2's keys are never shadowed.

    Raises ``ConfigError`` with the full key: unknown NAME or argument, missing argument, value that the constructor
    refuses (``constructing``). A bug in the constructor stays what it is.
    """
    if not node.get("NAME", ""):
        if len(node) > 1:
            arguments = ", ".join(name for name in node if name != "NAME")
            raise ConfigError(f"{key}.NAME is empty, but arguments are set: {arguments}.")
        return None
    target, arguments = check_spec(registry, node, key)
    for argument in set(arguments) & set(context):
        raise ConfigError(
            f"{key}.{argument.upper()}: {node['NAME']} takes this from detectron2's own key "
            f"(there it is {context[argument]!r}); set it there."
        )
    parameters = signature_parameters(target)
    arguments.update({name: value for name, value in context.items() if name in parameters})
    missing = missing_arguments(parameters, arguments)
    if missing:
        needed = ", ".join(f"{key}.{name.upper()}" for name in missing)
        raise ConfigError(f"{key}: {node['NAME']} needs {needed}.")
    with constructing(key, {f"{key}.{name.upper()}": value for name, value in arguments.items()}):
        return target(**arguments)
