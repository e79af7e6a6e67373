"""Outlines of the generated data set's classes and of the look-alikes that belong to no class.

An outline is an array of vertices (V, 2), x right and y down, centred on the origin, of arbitrary scale.
"""

import math

import numpy as np

__all__ = ["CLASS_NAMES", "LOOK_ALIKES", "unit_outline", "place_outline", "SUBPIXELS"]

SUBPIXELS = 16
"""Vertices are rounded to 1/16 pixel: a last-digit difference of sin and cos between machines moves no pixel."""


def _polar(radii):
    """Vertices at equal angles with the given radii, the first one pointing up."""
    angles = [2 * math.pi * k / len(radii) - math.pi / 2 for k in range(len(radii))]
    return np.array([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles)])


def _half_disc():
    return np.array([(math.cos(math.pi * k / 12), math.sin(math.pi * k / 12) - 0.5) for k in range(13)])


_OUTLINES = {
    "ellipse": lambda: _polar([1.0] * 28),
    "rectangle": lambda: np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float),
    "triangle": lambda: _polar([1.0] * 3),
    # No class: each is close to one or two of the above.
    "half disc": _half_disc,
    "trapezoid": lambda: np.array([(-0.45, -1), (0.45, -1), (1, 1), (-1, 1)], dtype=float),
    "hexagon": lambda: _polar([1.0] * 6),
    "arrowhead": lambda: np.array([(0, -1), (1, 1), (0, 0.45), (-1, 1)], dtype=float),
}

CLASS_NAMES = ("ellipse", "rectangle", "triangle")
LOOK_ALIKES = tuple(name for name in _OUTLINES if name not in CLASS_NAMES)


def unit_outline(name):
    """Vertices (V, 2) of the outline called ``name``, one of ``CLASS_NAMES`` or ``LOOK_ALIKES``."""
    return _OUTLINES[name]()


def place_outline(name, size, stretch, angle, centre):
    """The outline as it lies in the image: integer vertices (V, 2) in units of ``1 / SUBPIXELS`` pixel.

    ``size`` is the square root of its box's area in pixels, ``stretch`` its width over its height before it is
    turned by ``angle`` (radians), ``centre`` the (x, y) of its box's centre in pixels.
    """
    vertices = unit_outline(name) * (math.sqrt(stretch), 1 / math.sqrt(stretch))
    cos, sin = math.cos(angle), math.sin(angle)
    vertices = np.stack([vertices[:, 0] * cos - vertices[:, 1] * sin, vertices[:, 0] * sin + vertices[:, 1] * cos], 1)
    low, high = vertices.min(0), vertices.max(0)
    width, height = high - low
    vertices = (vertices - (low + high) / 2) * (size / math.sqrt(width * height)) + np.asarray(centre)
    return np.rint(vertices * SUBPIXELS).astype(np.int64)
