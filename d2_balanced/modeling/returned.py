"""What a component gave back, looked at before it is used: another shape would be broadcast, and train on wrong numbers."""

from __future__ import annotations

from typing import Any, Sequence

from torch import Tensor

__all__ = ["check_shape", "check_type"]


def check_shape(component: Any, seat: str, found: Any, *shapes: Sequence[int], meaning: str) -> Any:
    """``found``, a tensor of one of these shapes; ``TypeError`` for anything else, which names the component.

    Args:
        component: what was called.
        seat: its key, and what it is.
        meaning: the shapes in words.
    """
    if isinstance(found, Tensor) and tuple(found.shape) in map(tuple, shapes):
        return found
    got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__}"
    wanted = " or ".join(str(tuple(shape)) for shape in shapes)
    raise TypeError(f"{_name(component)} ({seat}) has returned {got}; wanted is {wanted}: {meaning}.")


def check_type(component: Any, seat: str, found: Any, wanted: type, remedy: str) -> Any:
    """``found``, if it is of the type ``wanted``; else ``TypeError``, which names the component and says what to do."""
    if isinstance(found, wanted):
        return found
    raise TypeError(f"{_name(component)} ({seat}) has returned {type(found).__name__}, not {wanted.__name__}; {remedy}.")


def _name(component: Any) -> str:
    return getattr(component, "__qualname__", type(component).__qualname__)
