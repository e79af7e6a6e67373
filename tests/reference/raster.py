"""Slow references for polygons and masks."""

import numpy as np


def point_in_polygon(x, y, vertices):
    """Whether a point is inside a polygon, by counting the edges to its left; exact for integers."""
    inside = False
    for (x0, y0), (x1, y1) in zip(vertices, vertices[1:] + vertices[:1]):
        if (y0 <= y) != (y1 <= y):
            # The crossing lies at x0 + (y - y0) * (x1 - x0) / (y1 - y0); compare without dividing.
            side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
            inside ^= side >= 0 if y1 > y0 else side <= 0
    return inside


def polygon_mask(vertices, height, width, units):
    """Mask of the pixels whose centre lies in the polygon; ``vertices`` in ``1 / units`` pixel, ``units`` even."""
    mask = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            mask[row, column] = point_in_polygon(column * units + units // 2, row * units + units // 2, vertices)
    return mask


def box(mask):
    """[x, y, width, height] of the true pixels."""
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
    return [min(xs), min(ys), max(xs) + 1 - min(xs), max(ys) + 1 - min(ys)]
