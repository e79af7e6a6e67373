"""How the tests run a command in their own process."""

import pytest

__all__ = ["refusal", "status"]


def status(main, *words):
    """The status with which the command ends: what ``main`` returns (0 for nothing), or the ``SystemExit``'s code."""
    try:
        return main([str(word) for word in words]) or 0
    except SystemExit as stop:
        return stop.code


def refusal(main, *words):
    """What the command says of the misuse that it refuses, with status 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 2
    return str(stop.value)
