"""Where the tests find things outside the package."""

import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.path.join(os.path.dirname(ROOT), "shared")


def shared_file(*parts):
    """Path below ``../shared`` (golden numbers, the small real data set); skips the test where it is absent."""
    path = os.path.join(SHARED, *parts)
    if not os.path.exists(path):
        pytest.skip(f"needs ../shared/{'/'.join(parts)}, which is not beside this checkout")
    return path
