"""How the tests run a command in their own process."""

import contextlib
import io
import sys

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
    told = io.StringIO()
    with pytest.raises(SystemExit) as stop, contextlib.redirect_stderr(told):
        main([str(word) for word in words])
    sys.stderr.write(told.getvalue())
    assert stop.value.code == 2
    return told.getvalue() if str(stop.value) == "2" else str(stop.value)  # of argparse only the number
